"""Path templates of google.api.http: parsing and matching.

``Template = "/" Segments [":" Verb]``, ``Segment = * | ** | LITERAL | {field.path[=Segments]}``. The grammar is in
google/api/http.proto; where it is open, grpc-gateway's ``internal/httprule`` is followed (verbs, ``**`` in the
middle).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

_LITERAL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})+")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STOPS = {"segment": re.compile(r"[/{]"), "field": re.compile(r"[.=}]"), "pattern": re.compile(r"[/}]")}


class PathTemplateError(ValueError):
    """A template that does not parse."""


@dataclass(frozen=True, slots=True)
class PathVariable:
    """A field path bound to the segments ``start`` up to ``end`` of its template."""

    field_path: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A parsed template; ``segments`` are literals, ``*`` and at most one ``**``."""

    text: str
    segments: tuple[str, ...]
    variables: tuple[PathVariable, ...]
    verb: str
    deep: int
    """Index of ``**`` in ``segments``, or -1."""
    literals: tuple[tuple[int, str], ...]
    """The segments that are not wildcards, with their indexes."""
    singles: tuple[tuple[str, int], ...] | None
    """The variables with their indexes, where each is one segment."""

    @classmethod
    def parse(cls, text: str) -> PathTemplate:
        """Parse a template.

        Raises:
            PathTemplateError: with the reason and the place.
        """
        if not text.startswith("/"):
            raise PathTemplateError(f"a template must begin with a slash (got {text!r})")
        tokens, verb = _tokens(text[1:])
        segments, variables = _Parser(text, tokens).parse()
        if segments.count("**") > 1:
            raise PathTemplateError(f"a template must have at most one ** (got {text!r})")
        deep = segments.index("**") if "**" in segments else -1
        literals = tuple((i, s) for i, s in enumerate(segments) if s not in ("*", "**"))
        are_single = all(v.end - v.start == 1 for v in variables)
        singles = tuple((v.field_path, v.start) for v in variables) if are_single else None
        return cls(text, segments, variables, verb, deep, literals, singles)

    def match(self, components: list[str]) -> dict[str, str] | None:
        """The variables' values by field path, or None; ``components`` come without the verb."""
        segments, count = self.segments, len(components)
        if self.deep < 0:
            if count != len(segments):
                return None
            values = components
        else:
            tail = len(segments) - self.deep - 1
            if count < self.deep + tail:
                return None
            end = count - tail
            values = [*components[: self.deep], "/".join(components[self.deep : end]), *components[end:]]
        for index, literal in self.literals:
            if values[index] != literal:
                return None
        if self.singles is not None:
            return {path: values[index] for path, index in self.singles}
        return {v.field_path: "/".join(values[v.start : v.end]) for v in self.variables}

    def has_gap(self, components: list[str]) -> bool:
        """Whether a wildcard matches an empty component of a path that matches, or ``**`` matches nothing."""
        tail = len(self.segments) - self.deep - 1 if self.deep >= 0 else 0
        for index, segment in enumerate(self.segments):
            if segment == "**":
                if not "".join(components[index : len(components) - tail]):
                    return True
            elif segment == "*":
                at = index if self.deep < 0 or index < self.deep else index - len(self.segments)
                if not components[at]:
                    return True
        return False

    def expand(self, values: Mapping[str, str]) -> str | None:
        """The path with these values of its variables, escaped; None where a wildcard has no value."""
        parts: list[str] = []
        at = 0
        for variable in self.variables:
            value = values.get(variable.field_path)
            if not value:
                return None
            inner = self.segments[variable.start : variable.end]
            parts += [*self.segments[at : variable.start], quote(value, safe="" if inner == ("*",) else "/")]
            at = variable.end
        parts += self.segments[at:]
        if "*" in parts or "**" in parts:
            return None
        return f"/{'/'.join(parts)}{':' if self.verb else ''}{self.verb}"

    @property
    def min_components(self) -> int:
        """The fewest components that can match."""
        return len(self.segments) - (self.deep >= 0)


def _tokens(rest: str) -> tuple[list[str], str]:
    """Cut what follows the first slash into tokens and the verb.

    The verb follows the last colon of the last segment; behind a closing brace it follows the first one, so that
    ``{name}:a:b`` has the verb ``a:b``.
    """
    tokens: list[str] = []
    state = "segment"
    while rest:
        found = _STOPS[state].search(rest)
        if found is None:
            tokens.append(rest)
            break
        stop = found.group()
        state = {"{": "field", "=": "pattern", "}": "segment"}.get(stop, state)
        if found.start():
            tokens.append(rest[: found.start()])
        tokens.append(stop)
        rest = rest[found.end() :]
    if not tokens:
        return [], ""
    last = tokens[-1]
    colon = last.find(":") if len(tokens) > 1 and tokens[-2] == "}" else last.rfind(":")
    if colon < 0:
        return tokens, ""
    kept = [*tokens[:-1], last[:colon]] if colon else tokens[:-1]
    return kept, last[colon + 1 :]


class _Parser:
    def __init__(self, text: str, tokens: list[str]) -> None:
        self._text, self._tokens, self._at = text, tokens, 0
        self._variables: list[PathVariable] = []

    def parse(self) -> tuple[tuple[str, ...], tuple[PathVariable, ...]]:
        if not self._tokens:
            return ("",), ()
        segments = self._segments(0, inside=False)
        if self._at != len(self._tokens):
            raise self._error(f"unexpected {self._peek()!r}")
        paths = [variable.field_path for variable in self._variables]
        for path in paths:
            if paths.count(path) > 1:
                raise self._error(f"variable {path!r} is bound twice")
        return tuple(segments), tuple(self._variables)

    def _segments(self, before: int, *, inside: bool) -> list[str]:
        segments = self._segment(before, inside=inside)
        while self._peek() == "/":
            self._at += 1
            segments += self._segment(before + len(segments), inside=inside)
        return segments

    def _segment(self, before: int, *, inside: bool) -> list[str]:
        token = self._take("a segment")
        if token in ("*", "**"):
            return [token]
        if token == "{":  # noqa: S105  a bracket
            if inside:
                raise self._error("a variable inside a variable")
            return self._variable(before)
        if not _LITERAL.fullmatch(token):
            raise self._error(f"{token!r} is not a literal segment")
        return [token]

    def _variable(self, before: int) -> list[str]:
        names = [self._name()]
        while self._peek() == ".":
            self._at += 1
            names.append(self._name())
        segments = ["*"]
        if self._peek() == "=":
            self._at += 1
            segments = self._segments(before, inside=True)
        if self._take("'}'") != "}":
            raise self._error("a variable that is not closed")
        self._variables.append(PathVariable(".".join(names), before, before + len(segments)))
        return segments

    def _name(self) -> str:
        name = self._take("a field name")
        if not _FIELD.fullmatch(name):
            raise self._error(f"{name!r} is not a field name")
        return name

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, wanted: str) -> str:
        token = self._peek()
        if token is None:
            raise self._error(f"{wanted} is missing at the end")
        self._at += 1
        return token

    def _error(self, reason: str) -> PathTemplateError:
        return PathTemplateError(f"{reason} in {self._text!r}")
