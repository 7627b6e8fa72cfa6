"""Pages of lists: cut by number and by bytes, continued by tokens. One mechanism for all lists.

A list reads its items in chunks, each item with its *place*: the values that order the list, of which no two items have
the same. A page ends after ``limit`` items or before the item that would make it larger than ``PAGE_BYTES``, and has at
least one. Its token holds the place of the last item, so the next page is one step in an index however far it is, and
what comes and goes meanwhile shifts nothing. What the first page says of the list, its token carries to the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from footlights.control.call.sealed import digest
from footlights.errors import InvalidArgument, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from footlights.control.call.sealed import Sealer

PAGE_BYTES: Final = 1 << 20
"""Of all items of a page. Stock gRPC clients take messages of 4 MiB."""

WHOLE_BYTES: Final = 3 << 20
"""The same for requests without ``limit``: their clients may know nothing of pages and expect everything."""

MOST_ITEMS: Final = 1000
"""In a page, at most; and where there is no ``limit``."""

_CHUNK: Final = 100
_KIND: Final = "page"

_OF_PAGES: Final = frozenset({"limit", "page_token", "offset", "view"})
"""Members of requests that may differ from page to page."""

M = TypeVar("M", bound=Message)
Place = list[Any]


class PageRequest(Protocol):
    """What requests of lists have in common."""

    limit: int
    page_token: str

    def HasField(self, field_name: Any) -> bool:  # noqa: N802  # protobuf's
        """Return whether a field is set."""


@dataclass(frozen=True, slots=True)
class Chunk(Generic[M]):
    """Items that follow each other in a list."""

    items: Sequence[tuple[Place, M | None]]
    """Each with its place; None for one that the caller did not ask for."""
    more: bool
    """Whether others may follow."""


@dataclass(frozen=True, slots=True)
class ListPage(Generic[M]):
    """One page."""

    items: list[M]
    next_page_token: str
    """Empty on the last one."""
    cut: bool = False
    """Whether it has fewer items than were asked for, because they are large."""
    carried: str = ""
    """What the first page gave to its token; empty where a token of the release before has none."""


class PagedList:
    """One list with one query: cuts its pages, makes its tokens, and refuses those of others."""

    def __init__(self, sealer: Sealer, name: str, request: Message) -> None:
        """``request`` decides which items there are, and in which order."""
        self._sealer, self._name = sealer, name
        self._digest = digest(request, without=_OF_PAGES)

    def page(
        self,
        request: PageRequest,
        read: Callable[[Place | None, int], Chunk[M]],
        *,
        sparse: bool = False,
        most_bytes: int = PAGE_BYTES,
        carry: Callable[[], str] = str,
        released: Callable[[str], Place | None] = lambda _: None,
    ) -> ListPage[M]:
        """Return the page that a request asks for.

        ``read`` returns up to so many items after a place, None for the beginning; ``sparse``: many of them may not be
        asked for. ``most_bytes``: of a page with a ``limit``. ``carry`` returns what the other pages are to have of
        the first one, and is called for that one only. ``released`` opens tokens of the release before.

        Raises InvalidArgument where the request's token is none of this list.
        """
        after: Place | None = None
        if request.page_token:
            after, carried = self._opened(request.page_token, released)
        else:
            carried = carry()
        asked = request.HasField("limit")
        limit, most = (request.limit, most_bytes) if asked else (MOST_ITEMS, WHOLE_BYTES)
        items: list[M] = []
        size, blind = 0, 1
        while True:
            chunk = read(after, blind * (_CHUNK if sparse else min(_CHUNK, limit + 1 - len(items))))
            for place, item in chunk.items:
                if item is not None:
                    added = item.ByteSize() + 8
                    if len(items) == limit or (items and size + added > most):
                        token = self._sealer.seal(_KIND, [self._name, self._digest, after, carried])
                        return ListPage(items, token, cut=len(items) < limit, carried=carried)
                    items.append(item)
                    size += added
                after = place
            if not chunk.more:
                return ListPage(items, "", carried=carried)
            # Where none of so many could be decoded there is no place to go on from, but further on there may be.
            blind = 1 if chunk.items else blind * 4

    def _opened(self, token: str, released: Callable[[str], Place | None]) -> tuple[Place, str]:
        found = self._sealer.open(_KIND, token)
        if found is None:
            place = released(token)
            if place is not None:
                return place, ""
            raise _refused("is not a page token of this list, or one of another version. Start again without it.")
        name, digest, place, carried = found
        if name != self._name:
            raise _refused(f"belongs to a list of {name}, and this is one of {self._name}. Start again without it.")
        if digest != self._digest:
            raise _refused("belongs to a list with other filters or another order. Start again without it.")
        return list(place), carried


def _refused(problem: str) -> InvalidArgument:
    return InvalidArgument("page_token", problem, reason=Reason.INVALID_PAGE_TOKEN)
