"""Lists as a whole: their pages, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from footlights.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from google.protobuf.message import Message

_LARGEST: Final = 1000
"""Number of items in a page at most; the server may send fewer."""

_ItemT = TypeVar("_ItemT")
_ItemT_co = TypeVar("_ItemT_co", covariant=True)
_RequestT = TypeVar("_RequestT", bound="Message")


class _Answer(Protocol[_ItemT_co]):
    next_page_token: str

    @property
    def items(self) -> Iterable[_ItemT_co]: ...


_AnswerT = TypeVar("_AnswerT", bound=_Answer[Any])


class Items(Generic[_AnswerT, _ItemT]):
    """The items of a list: ``async for item in items``; or its answers, page by page: ``items.pages()``."""

    def __init__(self, pages: Callable[[int | None], AsyncGenerator[_AnswerT, None]]) -> None:
        self._pages = pages

    def pages(self, most: int | None = None) -> AsyncGenerator[_AnswerT, None]:
        """Yield the pages until the last one, or until they have ``most`` items; one at least."""
        return self._pages(most)

    async def __aiter__(self) -> AsyncGenerator[_ItemT, None]:
        async for page in self._pages(None):
            for item in page.items:
                yield item


def items(call: Callable[[_RequestT], Awaitable[_AnswerT]], request: _RequestT) -> Items[_AnswerT, Any]:
    """Return the items of the list that ``call`` returns one page of.

    A ``limit`` in the request is the number of items in a page. Reading begins at the request's own page.
    """

    async def pages(most: int | None) -> AsyncGenerator[_AnswerT, None]:
        wanted: Any = type(request)()
        wanted.CopyFrom(request)
        size = wanted.limit if wanted.HasField("limit") else _LARGEST
        left = most
        while True:
            wanted.limit = size if left is None else min(size, left)
            page = await call(wanted)
            yield page
            if left is not None:
                left -= sum(1 for _ in page.items)
            if not page.next_page_token or (left is not None and left <= 0):
                return
            wanted.page_token = page.next_page_token
            if isinstance(wanted, session_pb2.ListSessionsRequest):
                wanted.ClearField("offset")  # the token goes on from there

    return Items(pages)
