"""Sessions by label and by text: along which indexes they are found, whatever the database would choose.

A text is compared with the *names* first, which are the different applications, users and label values that sessions
have: few, and read from indexes in as many steps as there are names. What matches decides the path: few sessions are
named one by one; many are read in the order of the list from the index of each name, or met soon enough on the way
through the list itself. Only a part of an id is compared with every session, in the index of their ids.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, bindparam, exists, func, literal, or_, select

from footlights.store.schema import SESSION, SESSION_LABEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.store.unit import Transaction

FEW = 1000
"""Up to so many sessions are named one by one."""
MOST_NAMES = 1000
"""Up to so many matching applications, or users, are compared one by one."""
MOST_LABELS = 200
"""Up to so many matching labels are."""
MOST_DIFFERENT = 10_000
"""Up to so many different names of one kind are read; beyond, each session's is compared."""
MOST_PATHS = 8
"""Up to so many indexes are read beside each other."""

Condition = ColumnElement[bool]


@dataclass(frozen=True, slots=True)
class IndexPath:
    """Conditions under which an index finds sessions."""

    conditions: Sequence[Condition] = ()
    by_label: bool = False
    """Whether there is a condition on the label too that leads to them, in the order of creation."""
    by_reason: bool = False
    """Whether there is a condition on the end reason that says all that the filter says of it."""
    named: bool = False
    """Whether the sessions are named one by one, and no other index may be preferred."""


def index_paths(
    tx: Transaction,
    labels: Sequence[tuple[str, str]],
    search: str,
    *,
    living: bool,
    by_creation: bool,
    named: set[str] | None = None,
) -> list[IndexPath]:
    """Return the paths along which every session is found that has all labels and the text, some perhaps twice.

    ``living``: only sessions that have not ended, which are few. ``by_creation``: in the order of creation. ``named``:
    the ids of a few, where no others are wanted.
    """
    rest: list[Condition] = []
    frequent: list[Condition] = []
    for key, value in labels:
        mine = _is_label(key, value)
        ids = few(tx, select(SESSION_LABEL.c.session_id).where(mine))
        if ids is None:
            rest.append(_has_label(mine))
            frequent.append(mine)
        else:
            named = ids if named is None else named & ids
    found = _Matches(tx, search, living=living or named is not None) if search else None
    if found is not None and named is None and not living:
        named = found.few(tx)
        if named is not None:
            found = None
    if named is not None:
        if not named:
            return []
        rest.append(SESSION.c.session_id.in_(sorted(named)))
    elif not living and by_creation:
        if found is not None and not found.wide and len(found.paths) <= MOST_PATHS:
            return [IndexPath((*rest, *path.conditions), path.by_label) for path in found.paths]
        if found is None and frequent:
            return [IndexPath((*rest[1:], frequent[0]), by_label=True)]
    if found is not None:
        rest.append(found.predicate())
    return [IndexPath(rest, named=named is not None)]


def few(tx: Transaction, statement: Select[tuple[str]]) -> set[str] | None:
    """Return the ids that a statement finds; None where they are more than ``FEW``."""
    ids = tx.execute(statement.limit(FEW + 1)).scalars().all()
    return set(ids) if len(ids) <= FEW else None


class _Matches:
    """The names and ids that contain a text."""

    def __init__(self, tx: Transaction, search: str, *, living: bool) -> None:
        part = search.lower()
        pattern = re.sub(r"([/%_])", r"/\1", search)
        self._pattern = func.lower(literal(f"%{pattern}%"))
        self._names: dict[str, list[str]] = {}
        self._wide: list[Condition] = []
        for column, different in ((SESSION.c.application, _APPLICATIONS), (SESSION.c.username, _USERNAMES)):
            names = _containing(part, tx.execute(different).scalars().all())
            if names is None:
                self._wide.append(self._contains(column))
            else:
                self._names[column.name] = names
        self._labels = _labels(tx, part)
        if self._labels is None:
            holders = select(SESSION_LABEL.c.session_id).where(self._contains(SESSION_LABEL.c.text))
            self._wide.append(SESSION.c.session_id.in_(holders))
        self._ids: set[str] = set()
        if _ID_PART.fullmatch(part):
            condition = _id_contains(tx, part)
            ids = None if living else few(tx, select(SESSION.c.session_id).where(condition))
            if ids is None:
                self._wide.append(condition)
            else:
                self._ids = ids
        self.wide = bool(self._wide)
        """Whether more may match than can be told one by one."""

    @property
    def paths(self) -> list[IndexPath]:
        """One for each name that matches, and one for the ids."""
        paths = [IndexPath([SESSION.c[name] == each]) for name, names in self._names.items() for each in names]
        paths += [IndexPath([_is_label(*label)], by_label=True) for label in self._labels or ()]
        return paths + [IndexPath([condition]) for condition in self._by_id()]

    def few(self, tx: Transaction) -> set[str] | None:
        """Return the ids of all sessions that match, where they are few."""
        if self.wide:
            return None
        ids = set(self._ids)
        statements = [select(SESSION.c.session_id).where(condition) for condition in self._by_name()]
        if self._labels:
            statements.append(select(SESSION_LABEL.c.session_id).where(_any_label(self._labels)))
        for statement in statements:
            some = few(tx, statement)
            if some is None:
                return None
            ids |= some
        return ids if len(ids) <= FEW else None

    def predicate(self) -> Condition:
        """Return the condition for a session that is met on another path."""
        labels = [_has_label(_any_label(self._labels))] if self._labels else []
        return or_(literal(False), *self._by_name(), *self._by_id(), *labels, *self._wide)

    def _by_name(self) -> list[Condition]:
        return [SESSION.c[name].in_(names) for name, names in self._names.items() if names]

    def _by_id(self) -> list[Condition]:
        return [SESSION.c.session_id.in_(sorted(self._ids))] if self._ids else []

    def _contains(self, column: ColumnElement[str]) -> Condition:
        return func.lower(column).like(self._pattern, escape="/")


def _id_contains(tx: Transaction, part: str) -> Condition:
    if len(part) > 8 and all((mine == "-") == (theirs == "-") for mine, theirs in zip(part, _LEAST, strict=False)):
        # Eight digits and a hyphen are nowhere else in an id. Whole ids as bounds: collations differ in what a hyphen,
        # or a shorter text, is worth.
        return SESSION.c.session_id.between(part + _LEAST[len(part) :], part + _GREATEST[len(part) :])
    return tx.engine.contains(SESSION.c.session_id, part)


def _labels(tx: Transaction, part: str) -> list[tuple[str, str]] | None:
    """Return the labels whose value contains a text; None where there are too many."""
    keys = tx.execute(_LABEL_KEYS).scalars().all()
    if len(keys) > MOST_LABELS:
        return None
    found: list[tuple[str, str]] = []
    for key in keys:
        values = _containing(part, tx.execute(_LABEL_VALUES, {"key": key}).scalars().all())
        if values is None or len(found) + len(values) > MOST_LABELS:
            return None
        found += [(key, value) for value in values]
    return found


def _containing(part: str, names: Sequence[str]) -> list[str] | None:
    """Return the names that contain a text; None where there are too many, or some were not read."""
    found = [name for name in names if part in name.lower()]
    return found if len(found) <= MOST_NAMES and len(names) <= MOST_DIFFERENT else None


def _different(column: ColumnElement[str], *fixed: Condition) -> Select[tuple[str]]:
    """Return the statement for each value of an indexed column once: a step in the index from each to the next."""
    first = select(func.min(column).label("value")).where(*fixed).cte("walk", recursive=True)
    following: Select[Any] = select(func.min(column)).where(column > first.c.value, *fixed)
    walk = first.union_all(select(following.scalar_subquery()).where(first.c.value.is_not(None)))
    return select(walk.c.value).where(walk.c.value.is_not(None)).limit(MOST_DIFFERENT + 1)


def _is_label(key: str, value: str) -> Condition:
    table = SESSION_LABEL.c
    return (table.kind == _KIND) & (table.key == key) & (table.text == value)


def _any_label(labels: Sequence[tuple[str, str]]) -> Condition:
    # One by one: SQLite reads the whole table for a row that is to be IN a list of rows.
    return or_(*(_is_label(*label) for label in labels))


def _has_label(label: Condition) -> Condition:
    mine = (
        SESSION_LABEL.c.created_time == SESSION.c.created_time,
        SESSION_LABEL.c.session_id == SESSION.c.session_id,
    )
    return exists(select(literal(1)).select_from(SESSION_LABEL).where(label, *mine).correlate(SESSION))


_KIND = "label"
_APPLICATIONS, _USERNAMES = _different(SESSION.c.application), _different(SESSION.c.username)
_LABEL_KEYS = _different(SESSION_LABEL.c.key, SESSION_LABEL.c.kind == _KIND)
_LABEL_VALUES = _different(SESSION_LABEL.c.text, SESSION_LABEL.c.kind == _KIND, SESSION_LABEL.c.key == bindparam("key"))
_ID_PART = re.compile(r"[0-9a-f-]{6,36}")
_LEAST = "00000000-0000-0000-0000-000000000000"
_GREATEST = "ffffffff-ffff-ffff-ffff-ffffffffffff"
