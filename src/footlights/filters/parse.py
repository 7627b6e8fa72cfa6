"""From the text of a filter to its conditions, or to an error that says where it is wrong and what would be right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args

from footlights.errors import InvalidArgument, Reason
from footlights.filters.conditions import Both, Comparison, Condition, Either, Negation, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MOST_CHARACTERS: Final = 4096
MOST_TERMS: Final = 64
MOST_DEPTH: Final = 16

_GRAMMAR: Final = r"""
?start: _any
_any: unit | both | either
both: unit ("AND" unit)+
either: unit ("OR" unit)+
?unit: comparison | negation | "(" _any ")"
negation: ("NOT" | "-") unit
comparison: MEMBER OPERATOR (TEXT | WORD)

MEMBER: /[a-z][a-z0-9_]*(\.[A-Za-z0-9_][A-Za-z0-9_.\/-]*|\.("([^"\\]|\\.)*"|'([^'\\]|\\.)*'))*/
OPERATOR: "<=" | ">=" | "!=" | "=" | "<" | ">" | ":"
TEXT: /"([^"\\]|\\.)*"|'([^'\\]|\\.)*'/
WORD: /[^\s()"'<>=!]+/
%ignore /\s+/
"""


class Kind(Enum):
    """What values a member has."""

    TEXT = "a text"
    NAME = "a name"
    NUMBER = "a whole number"
    TIME = "a time"
    FLAG = "true or false"
    MAP = "a map of texts"


@dataclass(frozen=True, slots=True)
class Member:
    """A member that a filter may name."""

    kind: Kind
    names: tuple[str, ...] = ()
    """The values of a ``NAME``."""


def parse(text: str, members: Mapping[str, Member], *, field: str = "filter") -> Condition | None:
    """Return the conditions of a filter; None for one that is empty.

    Raises InvalidArgument that names the position, from 1, and what would be right there.
    """
    if not text.strip():
        return None
    if len(text) > MOST_CHARACTERS:
        raise InvalidArgument(
            field,
            f"has {len(text)} characters. Give at most {MOST_CHARACTERS}.",
            reason=Reason.INVALID_FILTER,
            metadata={"position": str(MOST_CHARACTERS + 1)},
        )
    try:
        parsed = _parser().parse(text)
        return _Checked(members).condition(parsed, 1)
    except UnexpectedInput as error:
        problem = _Problem(_position(error, text), _misread(error, text, members))
    except _Problem as error:
        problem = error
    raise InvalidArgument(
        field,
        f"position {problem.position}: {problem.text}",
        reason=Reason.INVALID_FILTER,
        metadata={"position": str(problem.position)},
    )


class _Problem(Exception):
    def __init__(self, position: int, text: str) -> None:
        super().__init__(text)
        self.position, self.text = position, text


@dataclass(frozen=True, slots=True)
class _Read:
    """A comparison as it was written."""

    member: Token
    operator: Token
    value: Token


@v_args(inline=True)
class _TreeReader(Transformer[Token, Any]):
    def comparison(self, member: Token, operator: Token, value: Token) -> _Read:
        return _Read(member, operator, value)

    def negation(self, part: Any) -> tuple[str, tuple[Any, ...]]:
        return "NOT", (part,)

    def both(self, *parts: Any) -> tuple[str, tuple[Any, ...]]:
        return "AND", parts

    def either(self, *parts: Any) -> tuple[str, tuple[Any, ...]]:
        return "OR", parts


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", lexer="contextual", transformer=_TreeReader(), maybe_placeholders=False)


class _Checked:
    """Turns what was read into conditions, and bounds how many there are."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self._members, self._terms = members, 0

    def condition(self, read: Any, depth: int) -> Condition:
        if depth > MOST_DEPTH:
            raise _Problem(1, f"conditions are nested more than {MOST_DEPTH} deep. Write a simpler filter.")
        if isinstance(read, _Read):
            self._terms += 1
            if self._terms > MOST_TERMS:
                raise _Problem(_at(read.member), f"there are more than {MOST_TERMS} comparisons. Write fewer.")
            return self._comparison(read)
        word, parts = read
        found = tuple(self.condition(part, depth + 1) for part in parts)
        if word == "NOT":
            return Negation(found[0])
        return Both(found) if word == "AND" else Either(found)

    def _comparison(self, read: _Read) -> Condition:
        name, key = self._named(read.member)
        member, sign = self._members[name], str(read.operator)
        written, quoted = str(read.value), read.value.type == "TEXT"
        text = _unescaped(written[1:-1]) if quoted else written
        if sign == ":":
            return self._has(read, name, key, text)
        if member.kind is Kind.MAP and key is None:
            raise _Problem(_at(read.operator), f"{name} is a map. Write {name}.KEY = VALUE, or {name}:KEY.")
        kind = Kind.TEXT if member.kind is Kind.MAP else member.kind
        if sign not in ("=", "!=") and kind not in (Kind.NUMBER, Kind.TIME):
            raise _Problem(_at(read.operator), f"{read.member} is {kind.value}, which has no order. Use = or !=.")
        if kind is Kind.TEXT:
            # An escaped star stands for itself.
            star = re.sub(r"\\.", "", written[1:-1] if quoted else written).endswith("*")
            found = Comparison(name, "prefix" if star else "=", text[:-1] if star else text, key)
        else:
            value = self._value(read, member, text)
            found = Comparison(name, "=" if sign == "!=" else sign, value, key)
        return Negation(found) if sign == "!=" else found

    def _has(self, read: _Read, name: str, key: str | None, text: str) -> Condition:
        """``member:*`` says that it has a value, ``map:key`` that there is the key, ``map.key:value`` what is there."""
        is_map, any_ = self._members[name].kind is Kind.MAP, read.value == "*"
        if any_ and (key is not None or not is_map):
            return Comparison(name, "set", key=key)
        if is_map and text and not any_:
            return Comparison(name, "set", key=text) if key is None else Comparison(name, "=", text, key)
        raise _Problem(
            _at(read.operator), f"{read.member}:* asks whether there is a value. To compare it write {read.member} = …"
        )

    def _named(self, token: Token) -> tuple[str, str | None]:
        """Return the member that a path names, and the key in it where it is a map."""
        path = str(token)
        if path in self._members:
            return path, None
        for name, member in self._members.items():
            if member.kind is Kind.MAP and path.startswith(f"{name}.") and not path.endswith("."):
                key = path[len(name) + 1 :]
                return name, _unescaped(key[1:-1]) if key[0] in "\"'" else key
        raise _Problem(_at(token), f"unknown member {path!r}; choose from {_choice(self._members)}.")

    def _value(self, read: _Read, member: Member, text: str) -> Value:
        convert: Callable[[str, Member], Value | None] = _CONVERTED[member.kind]
        value = convert(text, member)
        if value is None:
            wanted = f"one of {', '.join(member.names)}" if member.names else _WANTED[member.kind]
            raise _Problem(_at(read.value), f"{text!r} is no value of {read.member}. Write {wanted}.")
        return value


def _name(text: str, member: Member) -> str | None:
    return text if text in member.names else None


def _number(text: str, _member: Member) -> int | None:
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else None


_RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:)([0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def _time(text: str, _member: Member) -> datetime | None:
    """Read RFC 3339 as its section 5.6 allows it: small ``t`` and ``z``, a space, any fraction, a leap second."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        return None
    day, minute, second, fraction, zone = found.groups()
    is_leap = second == "60"
    fraction = (fraction or "")[:6].ljust(6, "0")
    try:
        time = datetime.fromisoformat(f"{day}T{minute}{'59' if is_leap else second}.{fraction}{zone.upper()}")
        return time.astimezone(UTC) + timedelta(seconds=is_leap)
    except (ValueError, OverflowError):
        return None


def _flag(text: str, _member: Member) -> bool | None:
    return {"true": True, "false": False}.get(text)


_CONVERTED: Final[Mapping[Kind, Callable[[str, Member], Value | None]]] = {
    Kind.NAME: _name,
    Kind.NUMBER: _number,
    Kind.TIME: _time,
    Kind.FLAG: _flag,
}
_WANTED: Final[Mapping[Kind, str]] = {
    Kind.NUMBER: "a whole number of up to nine digits",
    Kind.TIME: 'a time with its zone, such as "2026-11-01T00:00:00Z"',
    Kind.FLAG: "true or false",
}


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _at(token: Token) -> int:
    return int(token.start_pos or 0) + 1


def _position(error: UnexpectedInput, text: str) -> int:
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        return len(text) + 1
    return int(error.pos_in_stream or 0) + 1


def _misread(error: UnexpectedInput, text: str, members: Mapping[str, Member]) -> str:
    if isinstance(error, UnexpectedCharacters):
        expected, got = error.allowed or set(), repr(text[error.pos_in_stream or 0])
    else:
        assert isinstance(error, UnexpectedToken)
        expected = error.accepts or error.expected
        if error.token.type in ("AND", "OR") and "MEMBER" not in expected:
            return "AND and OR beside each other need parentheses: (a = 1 OR b = 2) AND c = 3."
        got = "the end" if error.token.type == "$END" else repr(str(error.token))
    if "MEMBER" in expected:
        return f"found {got} where a member is expected: {_choice(members)}."
    if "OPERATOR" in expected:
        return f"found {got} where a comparison is expected: = != < <= > >= or :."
    if expected & {"TEXT", "WORD"}:
        return f"found {got} where a value is expected. Put texts into quotes."
    return f"found {got} where AND, OR or the end is expected."


def _choice(members: Mapping[str, Member]) -> str:
    return ", ".join(f"{name}.KEY" if member.kind is Kind.MAP else name for name, member in members.items())
