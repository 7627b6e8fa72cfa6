"""Lists as a whole, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from footlights.v1 import node_pb2, session_pb2
from google.protobuf import message_factory

from footlights.client import Client
from footlights.errors import InvalidArgument
from tests.client.standin import Standin
from tests.client.test_client import METHODS


@pytest.fixture
def standin() -> Iterator[Standin]:
    yield from Standin().serve()


@pytest.fixture
async def client(standin: Standin) -> AsyncIterator[Client]:
    async with Client.connect(standin.address, "fl_secret") as client:
        yield client


LISTS: list[tuple[str, Callable[[Client], Any]]] = [
    ("ListSessions", lambda c: c.sessions.iterate()),
    ("ListApplications", lambda c: c.applications.iterate()),
    ("ListVersions", lambda c: c.applications.iterate_versions("a")),
    ("ListReleases", lambda c: c.applications.iterate_releases("a")),
    ("ListPools", lambda c: c.pools.iterate()),
    ("ListProfiles", lambda c: c.profiles.iterate("a")),
    ("ListNodes", lambda c: c.nodes.iterate()),
    ("ListViewers", lambda c: c.sessions.viewers("s1")),
    ("ListTokens", lambda c: c.tokens.iterate()),
]


def test_every_list_can_be_read_as_a_whole() -> None:
    """All RPCs with a page token."""
    assert {name for name, _ in LISTS} == {
        name for name, method in METHODS.items() if "page_token" in method.input_type.fields_by_name
    }


def three_pages(method: str) -> Callable[[Any], Any]:
    """Two items, none, and one: a page may be short and not the last."""
    answer: Any = message_factory.GetMessageClass(METHODS[method].output_type)

    def page(request: Any) -> Any:
        number = int(request.page_token or 0)
        found = answer(next_page_token=str(number + 1) if number < 2 else "")
        for _ in range((2, 0, 1)[number]):
            found.items.add()
        return found

    return page


@pytest.mark.parametrize(("method", "iterate"), LISTS, ids=[name for name, _ in LISTS])
async def test_iterating_reads_every_page(
    standin: Standin, client: Client, method: str, iterate: Callable[[Client], Any]
) -> None:
    """In large pages, to the last one, with the same request; a second time from the beginning."""
    standin.on(method, three_pages(method))
    items = iterate(client)

    assert len([item async for item in items]) == 3
    assert len([item async for item in items]) == 3

    requests = standin.requests(method)
    assert [request.page_token for request in requests] == ["", "1", "2"] * 2
    assert {request.limit for request in requests} == {1000}
    assert all(getattr(request, "application", "a") in ("a", "") for request in requests)


async def test_a_request_is_kept_for_every_page(standin: Standin, client: Client) -> None:
    """Filter, size of a page and where to begin are the caller's; an offset is of the first page only."""
    standin.on("GetRelease", InvalidArgument("application", "is missing."))  # of this release: it has the RPC
    standin.on("ListSessions", three_pages("ListSessions"))
    standin.on("ListNodes", three_pages("ListNodes"))

    sessions = [each async for each in client.sessions.iterate(session_pb2.ListSessionsRequest(offset=7, limit=5))]
    nodes = [each async for each in client.nodes.iterate(node_pb2.ListNodesRequest(filter="f", page_token="1"))]

    assert (len(sessions), len(nodes)) == (3, 1)
    assert [(request.limit, request.offset) for request in standin.requests("ListSessions")] == [(5, 7), (5, 0), (5, 0)]
    assert [(request.filter, request.page_token) for request in standin.requests("ListNodes")] == [
        ("f", "1"),
        ("f", "2"),
    ]


async def test_reading_stops_at_the_most_that_is_wanted(standin: Standin, client: Client) -> None:
    """The last page asks for what is still missing, so that its token goes on exactly there."""

    def page(request: Any) -> Any:
        found = session_pb2.ListSessionsResponse(next_page_token="more")
        for _ in range(min(request.limit, 2)):
            found.items.add()
        return found

    standin.on("ListSessions", page)

    pages = [page async for page in client.sessions.iterate().pages(3)]

    assert [len(page.items) for page in pages] == [2, 1]
    assert [request.limit for request in standin.requests("ListSessions")] == [3, 1]
