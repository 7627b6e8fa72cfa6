"""Conditions: what a filter says, as values; and whether a resource fulfils them."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Value = str | int | bool | datetime


@dataclass(frozen=True, slots=True)
class Comparison:
    """One member compared with a value. The member of a resource that has no value is equal to none."""

    member: str
    operator: str
    """``=``, ``<``, ``<=``, ``>``, ``>=``; ``prefix``: a text begins with the value; ``set``: there is a value."""
    value: Value = ""
    key: str | None = None
    """Of a map, such as labels: the key whose value is compared."""


@dataclass(frozen=True, slots=True)
class Negation:
    """The opposite of a condition."""

    part: Condition


@dataclass(frozen=True, slots=True)
class Both:
    """All parts hold: ``AND``."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one part holds: ``OR``."""

    parts: tuple[Condition, ...]


Condition = Comparison | Negation | Both | Either

_COMPARED: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "prefix": str.startswith,
}


def matches(condition: Condition, values: Mapping[str, Any]) -> bool:
    """Return whether a resource fulfils a condition. ``values`` has its members by name; None is no value."""
    match condition:
        case Negation(part):
            return not matches(part, values)
        case Both(parts):
            return all(matches(part, values) for part in parts)
        case Either(parts):
            return any(matches(part, values) for part in parts)
    found = values[condition.member]
    if condition.key is not None:
        found = found.get(condition.key)
    if condition.operator == "set":
        return found is not None and (condition.key is not None or found != "")
    return found is not None and _COMPARED[condition.operator](found, condition.value)


def possible(condition: Condition, member: str, value: Value | None) -> bool:
    """Return whether a resource may fulfil a condition whose ``member`` has this value, whatever its others have."""
    return _known(condition, member, value) is not False


def _known(condition: Condition, member: str, value: Value | None) -> bool | None:
    """Return what one member alone decides; None where others do."""
    match condition:
        case Negation(part):
            known = _known(part, member, value)
            return None if known is None else not known
        case Both(parts):
            answers = {_known(part, member, value) for part in parts}
            return False if False in answers else None if None in answers else True
        case Either(parts):
            answers = {_known(part, member, value) for part in parts}
            return True if True in answers else None if None in answers else False
    return matches(condition, {member: value}) if condition.member == member else None


def comparisons(condition: Condition) -> Iterator[Comparison]:
    """Return every comparison in a condition."""
    match condition:
        case Negation(part):
            yield from comparisons(part)
        case Both(parts) | Either(parts):
            for part in parts:
                yield from comparisons(part)
        case Comparison():
            yield condition


def conjuncts(condition: Condition) -> Iterator[Condition]:
    """Return the parts that must all hold for a condition to hold."""
    if isinstance(condition, Both):
        for part in condition.parts:
            yield from conjuncts(part)
    else:
        yield condition


def required(condition: Condition) -> Iterator[Comparison]:
    """Return the comparisons that must hold for a condition to hold."""
    return (part for part in conjuncts(condition) if isinstance(part, Comparison))
