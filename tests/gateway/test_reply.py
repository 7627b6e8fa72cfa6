"""The reply option at run time, through a gateway: what a service that knows nothing of HTTP looks like over it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from google.protobuf import duration_pb2, message_factory
from google.rpc import error_details_pb2

from footlights.gateway import Gateway, Options
from footlights.gateway.routing.descriptors import from_set
from footlights.gateway.upstream import LocalUpstream
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
