"""The methods that a path has beyond those of its rules, in strict mode; and paths that are nearly right.

Covers what ``routing.router`` does there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from footlights.gateway import Options, routes
from footlights.gateway.routing.router import Router
from tests.gateway import depot as depots
from tests.gateway.depot import Depot, client_of, reason
from tests.gateway.test_routing import a_service, find


@pytest.fixture
def depot() -> Depot:
    """The service."""
    return Depot(answer={"crate": "a", "etag": "t"}, frames=[{"change": 1}])


@pytest.fixture
async def client(depot: Depot) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of it behind a strict gateway."""
    async with client_of(depot) as found:
        yield found


@pytest.mark.parametrize("path", ["/v1/crates/a", "/crates/a", "/v1/crates/a?nope=1"])
async def test_head_is_get_without_the_body(client: httpx2.AsyncClient, path: str) -> None:
    """Same status and headers, the length included, also of a refusal; the call is made."""
    got, head = await client.get(path), await client.head(path)

    without = [{k: v for k, v in answer.headers.items() if k != "x-request-id"} for answer in (got, head)]
    assert got.status_code == head.status_code
    assert without[0] == without[1]
    assert int(head.headers["content-length"]) == len(got.content)
    assert head.content == b""


async def test_a_stream_has_no_head(client: httpx2.AsyncClient, depot: Depot) -> None:
    """It has no end, so there is nothing to say its length; Allow tells."""
    answer = await client.head("/v1/crates:watch")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, OPTIONS"
    assert not depot.asked


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/crates/a", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("/v1/crates", "OPTIONS, POST"),
        ("/v1/crates/a:open", "OPTIONS, POST"),
        ("/v1/crates:watch", "GET, OPTIONS"),
    ],
)
async def test_options(client: httpx2.AsyncClient, path: str, allowed: str) -> None:
    """OPTIONS says what a path can do; a method that it cannot do is 405 and says the same."""
    asked, refused = await client.options(path), await client.request("TRACE", path)

    assert (asked.status_code, asked.content) == (204, b"")
    assert asked.headers["allow"] == refused.headers["allow"] == allowed
    assert refused.status_code == 405
    assert "TRACE" in refused.json()["message"]


async def test_options_where_nothing_is(client: httpx2.AsyncClient) -> None:
    """A path that does not exist can do nothing: 404."""
    assert (await client.options("/nope")).status_code == 404
    assert (await client.options("/v1/crates/")).status_code == 404


async def test_a_preflight_is_not_an_options(client: httpx2.AsyncClient) -> None:
    """A browser's question is answered with what CORS wants to hear."""
    headers = {"origin": "https://console.example", "access-control-request-method": "PUT"}
    answer = await client.options("/v1/crates/a", headers=headers)

    assert answer.status_code == 204
    assert answer.headers["access-control-allow-methods"] == "DELETE, GET, PATCH, PUT"
    assert "allow" not in answer.headers


async def test_the_default_dialect(depot: Depot) -> None:
    """There both are methods like any other, as in grpc-gateway."""
    async with client_of(depot, Options()) as client:
        assert (await client.head("/v1/crates/a")).status_code == 501
        assert (await client.options("/v1/crates/a")).status_code == 501


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
async def test_an_empty_variable_matches_nothing(client: httpx2.AsyncClient, depot: Depot, method: str) -> None:
    """``/v1/crates/`` is not the crate without a name: 404, and where the path without the slash exists it is named."""
    answer = await client.request(method, "/v1/crates/", content="{}" if method in ("PUT", "PATCH") else None)

    assert answer.status_code == 404
    if method != "HEAD":
        assert reason(answer)[1] == "PATH_NOT_FOUND"
        assert answer.json()["message"].endswith('Leave out the slash at the end: "/v1/crates".')
    assert not depot.asked


async def test_no_hint_where_there_is_nothing(client: httpx2.AsyncClient) -> None:
    """The path without its slash is only named where it exists."""
    assert (await client.get("/nope/")).json()["message"] == 'there is nothing at "/nope/".'
    assert (await client.get("//")).status_code == 404
    assert (await client.get("/v1/crates/a/")).json()["message"].endswith('"/v1/crates/a".')


@pytest.mark.parametrize(
    ("template", "path", "strict", "default"),
    [
        ("/a/{name}", "/a/", False, True),
        ("/a/{name}", "/a/b", True, True),
        ("/a/{name}/c", "/a//c", False, True),
        ("/a/{name=b/*}", "/a/b/", False, True),
        ("/a/*", "/a/", False, True),
        ("/a/{name=**}", "/a/", False, True),
        ("/a/{name=**}", "/a", False, True),
        ("/a/{name=**}", "/a/b//c", True, True),
        ("/a/{name=**}/d", "/a//d", False, True),
        ("/a/{name=**}/{inner.id}", "/a/b/", False, True),
        ("/", "/", True, True),
    ],
)
def test_empty_components(template: str, path: str, strict: bool, default: bool) -> None:
    """No wildcard of a strict router matches an empty component, except within the text of ``**``."""
    bindings = routes([a_service({"get": template})])

    assert (find(Router(bindings, strict=True), "GET", path) is not None) == strict
    assert (find(Router(bindings), "GET", path) is not None) == default


@pytest.mark.parametrize(
    ("template", "values", "path"),
    [
        ("/a/{name}", {"name": "x y/z"}, "/a/x%20y%2Fz"),
        ("/a/{name=b/*}/c:stop", {"name": "b/ü"}, "/a/b/%C3%BC/c:stop"),
        ("/a/{name=**}", {"name": "b/c"}, "/a/b/c"),
        ("/a/{name}", {}, None),
        ("/a/{name}", {"name": ""}, None),
        ("/a/*", {}, None),
        ("/", {}, "/"),
    ],
)
def test_a_template_as_a_path(template: str, values: dict[str, str], path: str | None) -> None:
    """A template with its variables filled in is a path that matches it; there is none while one is missing."""
    (binding,) = routes([a_service({"get": template})])

    assert binding.template.expand(values) == path


def test_what_a_strict_router_allows() -> None:
    """HEAD where there is a GET that ends; nothing where there is nothing."""
    router = Router(routes([depots.service()]), strict=True)

    assert router.allowed("/v1/crates/a") == ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "PUT"]
    assert router.allowed("/v1/crates:watch") == ["GET", "OPTIONS"]
    assert router.allowed("/v1/") == []
