"""Templates of commands and environments: text with ``{name}``, and ``{{`` and ``}}`` for braces. Pure.

There is no shell and no format language: a value is never read as a template again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

BUILT_IN = (
    "session_id",
    "signal_port",
    "media_port",
    "http_port",
    "public_address",
    "usd_stage_uri",
    "device_uuid",
    "device_index",
)
"""The placeholders of every version; its own arguments come on top."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TOKENS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_LINE_BREAKING = re.compile(r"[\0\r\n]")


class TemplateError(ValueError):
    """A template or a value for it is wrong; the message says what, with the value and the fix."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A name that is replaced by its value."""

    name: str


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template."""

    parts: tuple[str | Placeholder, ...]

    @property
    def names(self) -> frozenset[str]:
        """The placeholders it uses."""
        return frozenset(part.name for part in self.parts if isinstance(part, Placeholder))

    def render(self, values: Mapping[str, str]) -> str:
        """Replace every placeholder. Raises TemplateError."""
        return "".join(part if isinstance(part, str) else _value(part.name, values) for part in self.parts)

    def render_except(self, names: Collection[str], values: Mapping[str, str]) -> str:
        """Replace the placeholders that are not in ``names``; return a template over those. Raises TemplateError."""
        return "".join(
            _escaped(part)
            if isinstance(part, str)
            else f"{{{part.name}}}"
            if part.name in names
            else _escaped(_value(part.name, values))
            for part in self.parts
        )

    def render_token(self, values: Mapping[str, str]) -> str:
        """Replace every placeholder in one token of a command. Raises TemplateError.

        A value must not turn the token into an option: ``--offset={offset}`` takes what ``{offset}`` refuses.
        """
        for part in self.parts:
            if isinstance(part, str):
                break
            value = _value(part.name, values)
            if value.startswith("-"):
                raise TemplateError(
                    f"the value {value!r} of {{{part.name}}} starts with '-' and would be read as an option: "
                    f"give another value, or write the token as --option={{{part.name}}}."
                )
            if value:
                break
        return self.render(values)


def parse(text: str, known: Iterable[str] | None = None) -> Template:
    """Parse a template that may use the names ``known``, or any where None. Raises TemplateError."""
    if "\0" in text:
        raise TemplateError(f"{text!r} holds a NUL character: remove it.")
    names = None if known is None else frozenset(known)
    parts: list[str | Placeholder] = []
    for token in _TOKENS.finditer(text):
        part = _part(token, text, names)
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    return Template(tuple(parts))


def _part(token: re.Match[str], text: str, known: frozenset[str] | None) -> str | Placeholder:
    whole, name = token.group(), token.group(1)
    if whole in ("{{", "}}"):
        return whole[0]
    if whole in ("{", "}"):
        raise TemplateError(f"{text!r} has a lone {whole!r} at {token.start()}: write {whole * 2!r} for a brace.")
    if name is None:
        return whole
    if NAME.fullmatch(name) is None:
        raise TemplateError(
            f"{text!r} has the placeholder {whole!r}, which is not a name ({NAME.pattern}): write a name, "
            f"or {{{{ and }}}} for braces."
        )
    if known is not None and name not in known:
        raise TemplateError(f"{text!r} uses the unknown placeholder {{{name}}}: {_listed(known)}.")
    return Placeholder(name)


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _value(name: str, values: Mapping[str, str]) -> str:
    if name not in values:
        raise TemplateError(f"the placeholder {{{name}}} is unknown: {_listed(values)}.")
    value = values[name]
    if _LINE_BREAKING.search(value):
        raise TemplateError(f"the value {value!r} of {{{name}}} holds a NUL or a line break: remove it.")
    return value


def _listed(names: Iterable[str]) -> str:
    return "the known ones are " + ", ".join(f"{{{name}}}" for name in sorted(names))
