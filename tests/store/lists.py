"""Lists as tests read them: one page with its count, and where the next one begins."""

from __future__ import annotations

from dataclasses import dataclass

from footlights.store import Transaction
from footlights.store.schema import SessionRow
from footlights.store.sessions.listing import COUNT_CAP, Filter, Order, Place, Selection, place


@dataclass(frozen=True, slots=True)
class Page:
    """One page. ``following`` is the place of its last item; None on the last page."""

    items: tuple[SessionRow, ...]
    count: int
    count_is_capped: bool
    following: Place | None


def page(
    tx: Transaction,
    wanted: Filter,
    order: Order,
    *,
    limit: int,
    offset: int = 0,
    after: Place | None = None,
    count_cap: int = COUNT_CAP,
) -> Page:
    selection = Selection(tx, wanted, order, offset=offset)
    found = selection.read(limit + 1, after=after)
    count, capped = selection.count(count_cap)
    items = tuple(found.rows[:limit])
    more = len(found.rows) > limit or found.more
    return Page(items, count, capped, place(items[-1], order) if items and more else None)
