"""Paths that clients must stop using: they answer as before, say so, and are counted.

Covers `gateway.routing.deprecation`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from footlights.gateway import BindingError, routes
from tests.gateway import depot as depots
from tests.gateway.depot import Depot, client_of

SINCE, SUNSET = "@1796083200", "Wed, 01 Dec 2027 00:00:00 GMT"


@pytest.fixture
def depot() -> Depot:
    """The service."""
    return Depot()


@pytest.fixture(params=["", "/mounted"])
async def client(request: pytest.FixtureRequest, depot: Depot) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of it, mounted or not."""
    async with client_of(depot, root_path=request.param) as found:
        yield found


def said(answer: httpx2.Response) -> tuple[str | None, str | None, str | None]:
    """What an answer says about its path."""
    return tuple(answer.headers.get(name) for name in ("deprecation", "sunset", "link"))  # type: ignore[return-value]


@pytest.mark.parametrize("failure", [0, 5, 14])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_deprecated_path(client: httpx2.AsyncClient, depot: Depot, method: str, failure: int) -> None:
    """Its answers, also refusals, have Deprecation, Sunset and a Link to the same resource at the first path."""
    depot.failure = failure
    old = await client.request(method, "/crates/a%20b")
    new = await client.request(method, "/v1/crates/a%20b")

    root = client.base_url.path.rstrip("/")
    assert old.status_code == new.status_code
    assert old.content == new.content
    assert said(old) == (SINCE, SUNSET, f'<{root}/v1/crates/a%20b>; rel="successor-version"')
    assert said(new) == (None, None, None)
    assert depot.counted == [("GET", "/crates/{crate}")]


async def test_what_the_gateway_refuses(client: httpx2.AsyncClient, depot: Depot) -> None:
    """A request that never reaches the service has the headers as well, and counts."""
    refused = await client.get("/crates/a?nope=1")

    assert (refused.status_code, said(refused)[0]) == (400, SINCE)
    assert depot.counted == [("GET", "/crates/{crate}")]


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
async def test_a_stream(client: httpx2.AsyncClient, depot: Depot, accept: str) -> None:
    """A stream at a deprecated path says it in its head."""
    depot.frames = [{"change": 1}]
    answer = await client.get("/crates:watch", headers={"accept": accept})

    root = client.base_url.path.rstrip("/")
    assert said(answer) == (SINCE, SUNSET, f'<{root}/v1/crates:watch>; rel="successor-version"')
    assert depot.counted == [("GET", "/crates:watch")]


async def test_a_deprecated_rpc(client: httpx2.AsyncClient, depot: Depot) -> None:
    """All paths of an RPC that is itself deprecated are; there is no Link from a path to itself."""
    answer = await client.get("/secrets:watch")

    assert said(answer) == (SINCE, SUNSET, None)
    assert depot.counted == [("GET", "/secrets:watch")]


async def test_what_was_created_there_is_200_as_before(client: httpx2.AsyncClient) -> None:
    """The reply option ``created`` holds for the new path."""
    old, new = [await client.post(path, json={}) for path in ("/crates", "/v1/crates")]

    assert (old.status_code, new.status_code) == (200, 201)


async def test_a_body_of_another_type_is_still_read_there(client: httpx2.AsyncClient) -> None:
    """``curl -d`` without a type worked before; the new path wants JSON."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    old, new = [await client.post(path, content="{}", headers=form) for path in ("/crates", "/v1/crates")]

    assert (old.status_code, new.status_code) == (200, 415)


async def test_pages_of_other_origins_may_read_it(client: httpx2.AsyncClient) -> None:
    """CORS exposes the three headers."""
    answer = await client.get("/crates/a", headers={"origin": "https://console.example"})

    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"deprecation", "sunset", "link", "etag"} <= set(exposed)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('deprecated_paths) = "/crates:watch"', 'deprecated_paths) = "/crate:watch"', "'/crate:watch' is not one of"),
        ('since: "2026-12-01"', 'since: "soon"', "deprecation: Invalid isoformat string: 'soon'"),
        ('string etag = 3 [', 'int32 etag = 3 [', "Crate.etag: a field with a header must be a string"),
        ('event_type: "change"', 'event_type: "cursors"', "no field 'cursors'"),
    ],
)  # fmt: skip
def test_options_that_mean_nothing(old: str, new: str, message: str) -> None:
    """They fail at start, with the RPC or the field."""
    with pytest.raises(BindingError, match=message):
        _serve(depots.PROTO.replace(old, new))


def test_a_file_without_dates() -> None:
    """Its deprecated paths have a successor and no dates."""
    text = depots.PROTO.replace(
        'option (footlights.http.v1.deprecation) = {since: "2026-12-01" sunset: "2027-12-01"};', ""
    )
    found = {b.template.text: b.deprecation for b in routes([depots.service(text)])}

    assert found["/v1/crates/{crate}"] is None
    deprecation = found["/crates/{crate}"]
    assert deprecation is not None
    assert deprecation.headers({"crate": "a/b"}, "") == ((b"link", b'</v1/crates/a%2Fb>; rel="successor-version"'),)


def _serve(text: str) -> None:
    from footlights.gateway import Gateway, LocalUpstream
    from tests.gateway.handlers import LocalHandlers

    descriptor = depots.service(text)
    Gateway(LocalUpstream(LocalHandlers(descriptor, {})), [descriptor], depots.OPTIONS)
