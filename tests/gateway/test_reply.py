"""The reply option at run time, through a gateway: what a service that knows nothing of HTTP looks like over it.

Covers `gateway.encode.status_text`, and values of enums that only a newer server knows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from google.protobuf import duration_pb2, message_factory
from google.rpc import error_details_pb2

from footlights.gateway import Gateway, Options
from footlights.gateway.routing.descriptors import from_set
from footlights.gateway.upstream import LocalUpstream
from tests.gateway.depot import OPTIONS, Depot, client_of
from tests.gateway.handlers import HandlerCall, LocalHandlers, fail
from tests.gateway.shop import PROTO, compiled

EVENTS = {"accept": "text/event-stream"}


class Shop:
    """The shop: orders are pending but of what is ``ready``; ``odd`` has an awkward name, ``none`` has none."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    async def Order(self, request: Any, call: HandlerCall) -> Any:
        if request.what == "gone":
            raise fail(
                request.count,
                "not now",
                error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2, nanos=1)),
            )
        name = {"odd": "a b/ü?", "none": ""}.get(request.what, f"things/{request.what}")
        return self.thing(name=name, state=0 if request.what == "ready" else 1)

    async def Forget(self, request: Any, call: HandlerCall) -> Any:
        return self.thing(name=request.name)

    async def Watch(self, request: Any, call: HandlerCall) -> AsyncIterator[Any]:
        for revision in range(request.limit, request.limit + 2):
            yield self.thing(name="n", revision=revision)


@pytest.fixture(params=["", "/mounted"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the shop behind a strict gateway, mounted or not."""
    (service,) = from_set(compiled(PROTO), ["shop.v1.ShopService"])
    shop = Shop(message_factory.GetMessageClass(service.methods_by_name["Order"].output_type))
    functions = {name: getattr(shop, name) for name in ("Order", "Forget", "Watch")}
    upstream = LocalUpstream(LocalHandlers(service, functions))
    gateway = Gateway(upstream, [service], Options(strict=True, use_proto_names=True))
    transport = httpx2.ASGITransport(app=gateway, root_path=request.param)
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://shop{request.param}") as found:
        yield found


async def order(client: httpx2.AsyncClient, what: str, count: int = 1) -> httpx2.Response:
    return await client.post("/v1/shops/s/things", json={"what": what, "count": count})


async def test_accepted(client: httpx2.AsyncClient) -> None:
    """While the named field has one of the values the answer is 202, else 200; the body is the message either way."""
    pending, ready = await order(client, "shoe"), await order(client, "ready")

    assert (pending.status_code, pending.json()["state"]) == (202, "PENDING")
    assert (ready.status_code, ready.json()["state"]) == (200, "STATE_UNSPECIFIED")


@pytest.mark.parametrize(
    ("what", "location"), [("shoe", "/v1/things%2Fshoe"), ("odd", "/v1/a%20b%2F%C3%BC%3F"), ("none", None)]
)
async def test_location(client: httpx2.AsyncClient, what: str, location: str | None) -> None:
    """Location is the template below the mount, its fields escaped, and left out while a field of it is empty."""
    answer = await order(client, what)

    root = client.base_url.path.rstrip("/")
    assert answer.headers.get("location") == (None if location is None else root + location)


async def test_empty_body(client: httpx2.AsyncClient) -> None:
    """An answer without a body is 204, and has neither a length nor a type."""
    answer = await client.delete("/v1/things/x")

    assert (answer.status_code, answer.content) == (204, b"")
    assert not {"content-type", "content-length"} & set(answer.headers)


async def test_event_ids(client: httpx2.AsyncClient) -> None:
    """An event's id is the named field; the Last-Event-ID of a client that comes back fills the request."""
    first = await client.get("/v1/things:watch?limit=5", headers=EVENTS)
    again = await client.get("/v1/things:watch", headers={**EVENTS, "last-event-id": "6"})
    lines = await client.get("/v1/things:watch?limit=5")

    assert [line for line in first.text.splitlines() if line.startswith("id:")] == ["id: 5", "id: 6"]
    assert [line for line in again.text.splitlines() if line.startswith("id:")] == ["id: 6", "id: 7"]
    assert "id:" not in lines.text


async def test_a_last_event_id_that_is_none(client: httpx2.AsyncClient) -> None:
    """It is refused with its field, as a parameter would be."""
    answer = await client.get("/v1/things:watch", headers={**EVENTS, "last-event-id": "six"})

    assert answer.status_code == 400
    assert "limit" in answer.json()["message"]


@pytest.mark.parametrize(("code", "status", "after"), [(8, 429, "3"), (14, 503, "3"), (9, 400, None)])
async def test_retry_after(client: httpx2.AsyncClient, code: int, status: int, after: str | None) -> None:
    """RetryInfo becomes Retry-After, in whole seconds rounded up, where trying again is what the status asks for."""
    answer = await order(client, "gone", code)

    assert answer.status_code == status
    assert answer.headers.get("retry-after") == after
    assert answer.json()["details"][0]["retry_delay"] == "2.000000001s"


# What the depot's options say


@pytest.mark.parametrize(
    ("state", "status", "location"), [(1, 202, "/v1/crates/a"), (2, 201, "/v1/crates/a"), (0, 201, "/v1/crates/a")]
)
async def test_created(state: int, status: int, location: str) -> None:
    """What was created is 201, or 202 while it is not ready, with its Location either way."""
    async with client_of(Depot(answer={"crate": "a", "state": state})) as client:
        answer = await client.post("/v1/crates", json={})

    assert (answer.status_code, answer.headers["location"]) == (status, location)


@pytest.mark.parametrize(("failure", "path"), [(0, "/v1/crates"), (0, "/crates"), (7, "/v1/crates")])
async def test_secrets_are_not_stored(failure: int, path: str) -> None:
    """Answers of a call that has secrets are kept by no cache, at all its paths; those of others say nothing."""
    async with client_of(Depot(failure=failure)) as client:
        secret, other = await client.post(path, json={}), await client.get("/v1/crates/a")

    assert secret.headers.get_list("cache-control") == ["no-store"]
    assert "cache-control" not in other.headers


async def test_streams_of_secrets_are_not_stored() -> None:
    """Events are not stored at all where they have secrets, and else not without asking again."""
    async with client_of(Depot(frames=[{"change": 1}])) as client:
        secret = await client.get("/secrets:watch", headers=EVENTS)
        other = await client.get("/v1/crates:watch", headers=EVENTS)

    assert secret.headers.get_list("cache-control") == ["no-store"]
    assert other.headers.get_list("cache-control") == ["no-cache"]


async def test_event_types() -> None:
    """An event's type is the enum's name in lower case; it has none where that is unspecified, and lines have none."""
    frames: list[dict[str, Any]] = [{"change": 1, "cursor": "c1"}, {"change": 2, "cursor": "c2"}, {}, {"change": 7}]
    async with client_of(Depot(frames=frames)) as client:
        events = await client.get("/v1/crates:watch", headers=EVENTS)
        lines = await client.get("/v1/crates:watch")

    first, second, third, unknown = events.text.strip().split("\n\n")
    assert first == 'id: c1\nevent: set\ndata: {"change":"SET","cursor":"c1"}'
    assert second.splitlines()[:2] == ["id: c2", "event: synced"]
    assert "event:" not in third
    assert unknown.splitlines()[1:] == ["event: 7", 'data: {"change":7,"cursor":""}']
    assert "event:" not in lines.text


@pytest.mark.parametrize(("state", "status"), [(1, 202), (2, 200), (5, 200)])
async def test_accepted_looks_into_the_whole_response(state: int, status: int) -> None:
    """Also where only a part of it is the body."""
    async with client_of(Depot(answer={"crate": "a", "state": state})) as client:
        answer = await client.delete("/v1/crates/a")

    assert answer.status_code == status
    assert answer.json()["crate"] == "a"
    assert "status" not in answer.json()


async def test_enum_values_of_a_newer_server() -> None:
    """A number without a name is shown as the number, wherever it is, and the answer is no failure."""
    inside = {"state": 99}
    values = {
        "state": 9, "states": [1, 9, -1], "by_name": {"a": 9, "b": 1}, "presence": 9, "inside": inside,
    }  # fmt: skip
    async with client_of(Depot(answer=values)) as client:
        answer = await client.get("/v1/crates/a")

    found = answer.json()
    assert answer.status_code == 202, "accepted compares a number with its digits"
    assert (found["state"], found["states"], found["presence"]) == (9, ["NEW", 9, -1], 9)
    assert found["by_name"] == {"a": 9, "b": "NEW"}
    assert found["inside"]["state"] == 99


@pytest.mark.parametrize(("failure", "name"), [(5, "NOT_FOUND"), (16, "UNAUTHENTICATED"), (77, "UNKNOWN")])
async def test_errors_name_their_code(failure: int, name: str) -> None:
    """With the option an error has ``status`` beside ``code``, first of all, also one that the gateway makes."""
    async with client_of(Depot(failure=failure)) as client:
        answer, own = await client.get("/v1/crates/a"), await client.get("/nope")

    assert list(answer.json()) == ["code", "status", "message", "details"]
    assert (answer.json()["code"], answer.json()["status"]) == (failure, name)
    assert (own.json()["code"], own.json()["status"]) == (5, "NOT_FOUND")


async def test_a_broken_stream_names_its_code() -> None:
    """The last line of a stream, too; without the option there is no such member."""
    depot = Depot(failure=14)
    async with client_of(depot) as client, client_of(depot, replace(OPTIONS, name_status=False)) as plain:
        named = await client.get("/v1/crates:watch")
        assert "status" not in (await plain.get("/v1/crates:watch")).json()

    assert named.json()["status"] == "UNAVAILABLE"
