"""Sessions by label and by text: which conditions find them by index, whatever the engine would choose.

A text is looked for among the *terms* first, each of which is kept once however many sessions have it, and is found by
its trigrams. What is found decides the way: few sessions are named one by one; many are read in the order of the list
from the index of each term, or met soon enough on the way through the list itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Select, and_, delete, exists, func, literal, or_, select, text, tuple_

from footlights.store.schema import SESSION, SESSION_TERM, TERM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.store.unit import Transaction

FEW = 1000
"""Up to so many sessions are named one by one."""
MOST_TERMS = 200
"""Up to so many terms are named one by one."""
MOST_WAYS = 8
"""Up to so many indexes are read beside each other."""
MOST_LOOKED_AT = 10_000
"""Of so many terms those are removed at once that no session has any more."""

Condition = ColumnElement[bool]


@dataclass(frozen=True, slots=True)
class Way:
    """Conditions on sessions; ``via_term``: on the term too that leads to them, in the order of creation.

    ``named``: the sessions are named one by one, and no other index may be taken for a better one.
    """

    conditions: Sequence[Condition] = ()
    via_term: bool = False
    named: bool = False


def ways(
    tx: Transaction, labels: Sequence[tuple[str, str]], search: str, *, living: bool, by_creation: bool
) -> list[Way]:
    """Return the ways on which every session is met that has all labels and holds the text, some perhaps twice.

    Args:
        tx: The transaction in which they are to be gone.
        labels: Keys and values.
        search: A part of a text, of three characters at least; empty for any session.
        living: Whether only sessions that have not ended are wanted: they are few.
        by_creation: Whether the list is in the order of creation.
    """
    named: set[str] | None = None
    rest: list[Condition] = []
    frequent: list[Condition] = []
    for key, value in labels:
        mine = _is_label(key, value)
        ids = _few(tx, select(SESSION_TERM.c.session_id).where(mine))
        if ids is None:
            rest.append(_has_term(mine))
            frequent.append(mine)
        else:
            named = ids if named is None else named & ids
    found = _Found(tx, search) if search else None
    if found is not None and named is None:
        named = found.few(tx)
        if named is not None:
            found = None
    if named is not None:
        if not named:
            return []
        rest.append(SESSION.c.session_id.in_(sorted(named)))
    elif not living and by_creation:
        if found is not None and len(found.ways) <= MOST_WAYS and not found.wide:
            return [Way((*rest, *way.conditions), way.via_term) for way in found.ways]
        if found is None and frequent:
            return [Way((*rest[1:], frequent[0]), via_term=True)]
    if found is not None:
        rest.append(found.predicate())
    return [Way(rest, named=named is not None)]


def unused_terms(tx: Transaction, after: int) -> tuple[list[int], int]:
    """Look at the next terms after a number, of which all begin at 0, for those that no session has any more.

    Returns:
        Their numbers, and after which to look next: 0 where the last one was reached.
    """
    number = TERM.c.number
    looked_at = tx.execute(select(number).where(number > after).order_by(number).limit(MOST_LOOKED_AT)).scalars().all()
    if not looked_at:
        return [], 0
    unused = tx.execute(select(number).where(number > after, number <= looked_at[-1], ~_is_used())).scalars().all()
    return list(unused), looked_at[-1] if len(looked_at) == MOST_LOOKED_AT else 0


def forget_terms(tx: Transaction, numbers: Sequence[int]) -> int:
    """Remove those of some terms that still no session has; return how many."""
    if tx.dialect == "postgresql":
        # Whoever is about to use one of them has found it already, or adds it again after this. Nobody creates a
        # session meanwhile, so what may be removed was looked for before.
        tx.connection.exec_driver_sql("LOCK TABLE term IN SHARE ROW EXCLUSIVE MODE")
    return tx.changed(delete(TERM).where(TERM.c.number.in_(numbers), ~_is_used()))


def _is_used() -> Condition:
    mine = (SESSION_TERM.c.kind == TERM.c.kind, SESSION_TERM.c.key == TERM.c.key, SESSION_TERM.c.text == TERM.c.text)
    kinds = TERM.c.kind
    return or_(
        and_(kinds == "application", exists().where(SESSION.c.application == TERM.c.text)),
        and_(kinds == "username", exists().where(SESSION.c.username == TERM.c.text)),
        and_(kinds.in_(("label", "message")), exists().where(*mine)),
    )


class _Found:
    """The terms that hold a text, and the sessions whose id begins with it."""

    def __init__(self, tx: Transaction, search: str) -> None:
        self._holds = _holds(tx.dialect, search)
        statement = select(TERM.c.kind, TERM.c.key, TERM.c.text).where(self._holds).limit(MOST_TERMS + 1)
        rows = tx.execute(statement).all()
        self.wide = len(rows) > MOST_TERMS
        self._columns = {
            kind: [each for found, _, each in rows if found == kind] for kind in ("application", "username")
        }
        self._terms = [(kind, key, each) for kind, key, each in rows if kind not in self._columns]
        self._prefix = search.lower() if _ID_PART.fullmatch(search.lower()) else ""
        self.ways = [Way([condition]) for condition in self._by_column(one_by_one=True)]
        self.ways += [Way([_is_term(*term)], via_term=True) for term in self._terms]

    def few(self, tx: Transaction) -> set[str] | None:
        """Return the ids of all sessions that are meant where they are few."""
        if self.wide:
            return None
        ids: set[str] = set()
        statements = [select(SESSION.c.session_id).where(condition) for condition in self._by_column()]
        if self._terms:
            statements.append(select(SESSION_TERM.c.session_id).where(self._named()))
        for statement in statements:
            some = _few(tx, statement)
            if some is None:
                return None
            ids |= some
        return ids if len(ids) <= FEW else None

    def predicate(self) -> Condition:
        """Return what a session that is met on another way must fulfil."""
        if not self.wide:
            terms = [_has_term(self._named())] if self._terms else []
            return or_(literal(False), *self._by_column(), *terms)
        texts = {
            name: select(TERM.c.text).where(TERM.c.kind == name, self._holds) for name in ("application", "username")
        }
        others = select(TERM.c.kind, TERM.c.key, TERM.c.text).where(TERM.c.kind.in_(("label", "message")), self._holds)
        return or_(
            SESSION.c.application.in_(texts["application"]),
            SESSION.c.username.in_(texts["username"]),
            _has_term(_TERM.in_(others)),
            *self._by_prefix(),
        )

    def _named(self) -> Condition:
        # One by one: SQLite reads the whole table for a row that is to be IN a list of rows.
        return or_(*(_is_term(*term) for term in self._terms))

    def _by_column(self, *, one_by_one: bool = False) -> list[Condition]:
        conditions: list[Condition] = []
        for name, texts in self._columns.items():
            if one_by_one:
                conditions += [SESSION.c[name] == each for each in texts]
            elif texts:
                conditions.append(SESSION.c[name].in_(texts))
        return conditions + self._by_prefix()

    def _by_prefix(self) -> list[Condition]:
        # Whole ids as bounds: collations differ in what a hyphen, or a shorter text, is worth.
        if not self._prefix:
            return []
        low = self._prefix + _LEAST[len(self._prefix) :]
        high = self._prefix + _GREATEST[len(self._prefix) :]
        return [
            SESSION.c.session_id.between(low, high),
        ]


def _few(tx: Transaction, statement: Select[tuple[str]]) -> set[str] | None:
    ids = tx.execute(statement.limit(FEW + 1)).scalars().all()
    return set(ids) if len(ids) <= FEW else None


def _holds(dialect: str, search: str) -> Condition:
    """Return the condition that a term holds a text; ASCII letters are alike in both cases."""
    if dialect == "postgresql":
        part, whole = func.lower(literal(search)), func.lower(TERM.c.text)
        by_index = func.footlights_trigrams(whole).bool_op("@>")(func.footlights_trigrams(part))
        return and_(by_index, func.strpos(whole, part) > 0)
    trigrams = sorted({search[place : place + 3] for place in range(len(search) - 2)})
    wanted = " AND ".join('"' + trigram.replace('"', '""') + '"' for trigram in trigrams)
    indexed = text("term.number IN (SELECT rowid FROM term_fts WHERE term_fts MATCH :wanted)").bindparams(wanted=wanted)
    return and_(indexed, func.instr(func.lower(TERM.c.text), func.lower(literal(search))) > 0)


def _is_label(key: str, value: str) -> Condition:
    return _is_term("label", key, value)


def _is_term(kind: str, key: str, value: str) -> Condition:
    return (SESSION_TERM.c.kind == kind) & (SESSION_TERM.c.key == key) & (SESSION_TERM.c.text == value)


def _has_term(term: Condition) -> Condition:
    mine = (
        SESSION_TERM.c.created_time == SESSION.c.created_time,
        SESSION_TERM.c.session_id == SESSION.c.session_id,
    )
    return exists(select(literal(1)).select_from(SESSION_TERM).where(term, *mine).correlate(SESSION))


_TERM = tuple_(SESSION_TERM.c.kind, SESSION_TERM.c.key, SESSION_TERM.c.text)
_ID_PART = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{0,4}(-[0-9a-f]{0,4}(-[0-9a-f]{0,4}(-[0-9a-f]{0,12})?)?)?)?")
_LEAST = "00000000-0000-0000-0000-000000000000"
_GREATEST = "ffffffff-ffff-ffff-ffff-ffffffffffff"
