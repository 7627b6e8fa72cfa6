"""Path templates: what they mean, what they match, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.gateway.routing.path_template import PathTemplate, PathTemplateError, PathVariable


@pytest.mark.parametrize(
    ("text", "segments", "variables", "verb"),
    [
        ("/", ("",), [], ""),
        ("/v1", ("v1",), [], ""),
        ("/v1/*", ("v1", "*"), [], ""),
        ("/v1/**", ("v1", "**"), [], ""),
        ("/v1/a:b", ("v1", "a"), [], "b"),
        ("/v1/a:b:c", ("v1", "a:b"), [], "c"),
        ("/{x}", ("*",), [("x", 0, 1)], ""),
        ("/{x=*}", ("*",), [("x", 0, 1)], ""),
        ("/{x}:", ("*",), [("x", 0, 1)], ""),
        ("/{x}:bla", ("*",), [("x", 0, 1)], "bla"),
        ("/{x}:bla:baa", ("*",), [("x", 0, 1)], "bla:baa"),
        ("/{x=segment/wi:th}", ("segment", "wi:th"), [("x", 0, 2)], ""),
        (
            "/v1/{a.b=things/*}/{c=**}/end:stop",
            ("v1", "things", "*", "**", "end"),
            [("a.b", 1, 3), ("c", 3, 4)],
            "stop",
        ),
        ("/a%20b/c@d", ("a%20b", "c@d"), [], ""),
    ],
)
def test_parse(text: str, segments: tuple[str, ...], variables: list[tuple[str, int, int]], verb: str) -> None:
    """
    A template is its segments, its variables' places, and its verb.
    """
    template = PathTemplate.parse(text)

    assert template.segments == segments
    assert list(template.variables) == [PathVariable(*variable) for variable in variables]
    assert template.verb == verb


@pytest.mark.parametrize(
    "text",
    ["", "v1", "//a", "/a/", "/{", "/{}", "/{x", "/{x=", "/{x=}", "/{x={y}}", "/{x}/{x}", "/**/**", "/{1x}",
     "/a b", "/%zz",
     "/{a..b}", "/}", "/{x}y", "/{x=a/}", "/a?b", "/a#b"],
)  # fmt: skip
def test_refused(text: str) -> None:
    """
    What does not parse is refused, and the message shows the template.
    """
    with pytest.raises(PathTemplateError) as caught:
        PathTemplate.parse(text)

    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "path", "wanted"),
    [
        ("/v1/{x}", "v1/a", {"x": "a"}),
        ("/v1/{x}", "v1/", {"x": ""}),
        ("/v1/{x}", "v1/a/b", None),
        ("/v1/{x}", "v1", None),
        ("/v1/{x}", "V1/a", None),
        ("/v1/{x=things/*}", "v1/things/a", {"x": "things/a"}),
        ("/v1/{x=**}", "v1", {"x": ""}),
        ("/v1/{x=**}", "v1/", {"x": ""}),
        ("/v1/{x=**}", "v1/a//b", {"x": "a//b"}),
        ("/v1/{x=a/**}/end", "v1/a/end", {"x": "a/"}),
        ("/v1/{x=a/**}/end", "v1/a/b/c/end", {"x": "a/b/c"}),
        ("/v1/{x=a/**}/end", "v1/a/end/end", {"x": "a/end"}),
        ("/v1/{x=a/**}/end", "v1/a/b", None),
        ("/", "", {}),
    ],
)
def test_match(text: str, path: str, wanted: dict[str, str] | None) -> None:
    """
    Components match one by one; ``*`` takes an empty one, ``**`` any number of them.
    """
    assert PathTemplate.parse(text).match(path.split("/")) == wanted


NAMES = st.from_regex(r"[a-z][a-z_]{0,5}", fullmatch=True)
LITERALS = st.from_regex(r"[A-Za-z0-9._~-]{1,6}", fullmatch=True)


@st.composite
def substituted(draw: st.DrawFn) -> tuple[str, list[str], dict[str, str]]:
    """A template, a path made from it, and the values that were put in."""
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    deep = draw(st.sampled_from([None, *range(len(names))]))
    parts, path, values = [draw(LITERALS)], [], {}
    path.append(parts[0])
    for index, name in enumerate(names):
        if draw(st.booleans()):
            literal = draw(LITERALS)
            parts.append(literal)
            path.append(literal)
        if index == deep:
            prefix = draw(LITERALS)
            inside = draw(st.lists(LITERALS, max_size=3))
            parts.append(f"{{{name}={prefix}/**}}")
            path += [prefix, *inside]
            values[name] = f"{prefix}/{'/'.join(inside)}"
        else:
            value = draw(LITERALS)
            parts.append(f"{{{name}}}")
            path.append(value)
            values[name] = value
    return "/" + "/".join(parts), path, values


@given(substituted())
def test_match_inverts_substitution(case: tuple[str, list[str], dict[str, str]]) -> None:
    """
    What is put into a template comes out of the path again.
    """
    text, path, values = case

    assert PathTemplate.parse(text).match(path) == values


@given(st.text(alphabet="/{}*=:.ab%2", max_size=20))
def test_no_other_error(text: str) -> None:
    """
    Any text either parses or is refused as a template.
    """
    try:
        template = PathTemplate.parse(text)
    except PathTemplateError:
        return
    assert template.min_components <= len(template.segments)
