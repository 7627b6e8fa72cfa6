"""Deciding for a whole queue at once, from a fleet that is not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.scheduler.index import Index

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from footlights.scheduler.decisions import Placement, Waiting
    from footlights.scheduler.views import NodeView, Wish


def place(wishes: Iterable[Wish], nodes: Sequence[NodeView]) -> list[Placement | Waiting]:
    """Decide for every wish, in order, as ``Index.place_all`` does; who places again and again keeps an index."""
    return Index(nodes).place_all(wishes)
