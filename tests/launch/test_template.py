"""Templates: what is written comes out, and no value becomes anything else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.launch.recipe.template import TemplateError, parse

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
PRINTABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"))
VALUES = st.dictionaries(NAMES, PRINTABLE, min_size=1, max_size=4)


@given(PRINTABLE)
def test_escaped_text_is_itself(text: str) -> None:
    """Escaped text renders to itself and uses no placeholder, whatever is in it."""
    template = parse(escape(text), known=())

    assert (template.render({}), template.names) == (text, frozenset())


@given(VALUES, st.data())
def test_concatenation(values: dict[str, str], data: st.DataObject) -> None:
    """A template of texts and placeholders renders to the texts and values in their order: nothing is read twice."""
    texts = PRINTABLE.map(lambda text: (escape(text), text))
    placeholders = st.sampled_from(sorted(values)).map(lambda name: (f"{{{name}}}", values[name]))
    parts = data.draw(st.lists(texts | placeholders))

    template = parse("".join(source for source, _ in parts), known=values)

    assert template.render(values) == "".join(text for _, text in parts)


@given(VALUES, st.text(alphabet="{}ab-", max_size=12))
def test_token_never_becomes_an_option(values: dict[str, str], text: str) -> None:
    """A token begins with '-' only where its template does."""
    try:
        token = parse(text).render_token(values)
    except TemplateError:
        return
    assert text.startswith("-") or not token.startswith("-")


@given(st.text(alphabet="{}az_0 ", max_size=10))
def test_parse_is_total(text: str) -> None:
    """Any text is a template or a TemplateError that shows it."""
    try:
        problem = ""
        parse(text)
    except TemplateError as error:
        problem = str(error)
    assert repr(text) in problem or not problem


@pytest.mark.parametrize("value", ["-rf", "--/app/x=1", "-"])
def test_whole_token_refuses_an_option(value: str) -> None:
    """A whole-token placeholder refuses a leading '-' and says how to write it; after a prefix it is welcome."""
    with pytest.raises(TemplateError, match=re.escape("--option={scene}")):
        parse("{scene}").render_token({"scene": value})
    with pytest.raises(TemplateError):
        parse("{empty}{scene}").render_token({"scene": value, "empty": ""})

    assert parse("--scene={scene}").render_token({"scene": value}) == f"--scene={value}"
    assert parse("{scene}").render({"scene": value}) == value


@pytest.mark.parametrize("value", ["a\0b", "a\nb", "a\rb"])
def test_values_of_several_lines(value: str) -> None:
    """NUL and line breaks in a value are refused."""
    with pytest.raises(TemplateError, match="line break"):
        parse("x{scene}").render({"scene": value})


def test_unknown_placeholder() -> None:
    """An unknown placeholder is refused with the known ones, when parsing and when rendering."""
    with pytest.raises(TemplateError, match=r"\{sesion_id\}: the known ones are \{http_port\}, \{session_id\}"):
        parse("a{sesion_id}", known=["session_id", "http_port"])
    with pytest.raises(TemplateError, match=re.escape("the known ones are {a}")):
        parse("{b}").render({"a": ""})


@pytest.mark.parametrize("text", ["{", "}", "a{b", "{}", "{A}", "{a b}", "{a!r}", "{a:x}", "{{a}", "{0}", "a\0"])
def test_malformed(text: str) -> None:
    """A lone brace, a malformed name and NUL are refused."""
    with pytest.raises(TemplateError):
        parse(text)


def escape(text: str) -> str:
    """The template that renders to ``text`` whatever the values are."""
    return text.replace("{", "{{").replace("}", "}}")
