"""Headers that carry fields, both ways, the conditions that a call cannot keep, and what a body must be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import pytest

from footlights.gateway import Options
from tests.gateway.depot import Depot, client_of, reason


@pytest.fixture
def depot() -> Depot:
    """The service."""
    return Depot()


@pytest.fixture
async def client(depot: Depot) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of it behind a strict gateway."""
    async with client_of(depot) as found:
        yield found


async def put(
    client: httpx2.AsyncClient, if_match: Any, query: str = "", headers: Mapping[str, str] | None = None
) -> httpx2.Response:
    """Set a crate under a condition."""
    return await client.put(f"/v1/crates/a{query}", json={}, headers={**(headers or {}), "if-match": if_match})


# Of a request


async def test_a_header_fills_the_field(client: httpx2.AsyncClient, depot: Depot) -> None:
    """Where body and query leave it out; the tag of If-Match comes without its quotes, and ``*`` as it is."""
    await client.post("/v1/crates", json={"count": 1}, headers={"idempotency-key": "k 1"})
    for value in ('"t-1"', ' "t-1" ', "*"):
        await put(client, value)
    await client.delete("/v1/crates/a", headers={"if-match": '"t-2"'})

    assert depot.asked[0].request_id == "k 1"
    assert [asked.etag for asked in depot.asked[1:]] == ["t-1", "t-1", "*", "t-2"]


async def test_both_and_equal_is_one(client: httpx2.AsyncClient, depot: Depot) -> None:
    """A header that repeats the body or the query is fine."""
    body = await client.post("/v1/crates", json={"request_id": "k"}, headers={"idempotency-key": "k"})
    query = await put(client, '"t"', "?etag=t")

    assert (body.status_code, query.status_code) == (201, 200)
    assert (depot.asked[0].request_id, depot.asked[1].etag) == ("k", "t")


async def test_both_and_different_is_refused(client: httpx2.AsyncClient, depot: Depot) -> None:
    """With the field's name and both values."""
    body = await client.post("/v1/crates", json={"request_id": "a"}, headers={"idempotency-key": "b"})
    query = await put(client, '"b"', "?etag=a")

    assert reason(body) == (400, "VALUE_CONFLICT", "request_id")
    assert body.json()["message"] == 'request_id is "a", but Idempotency-Key has "b"; send one of them.'
    assert reason(query) == (400, "VALUE_CONFLICT", "etag")
    assert not depot.asked


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('W/"a"', "strong entity tag"),
        ('"a", "b"', "not a list"),
        ("a,b", "not a list"),
        ("a", "in quotes"),
        ('"a', "in quotes"),
        ('""', "in quotes"),
        ("", "in quotes"),
        ('"a b"', "in quotes"),
        ('"a"b"', "not a list"),
        (b'"\xff"', "in quotes"),
        ("**", "in quotes"),
    ],
)
async def test_if_match_is_one_strong_tag(
    client: httpx2.AsyncClient, depot: Depot, value: str | bytes, words: str
) -> None:
    """Anything else is refused, and the message says what is wanted: a condition is never dropped."""
    answer = await put(client, value)

    assert reason(answer) == (400, "INVALID_HEADER", "If-Match")
    assert words in answer.json()["message"]
    assert not depot.asked


@pytest.mark.parametrize("value", [b"", b"  ", b"\xc3\xa4", b"a\x00b", b"a\tb", b"\xff" * 3])
async def test_a_key_is_printable_ascii(client: httpx2.AsyncClient, depot: Depot, value: bytes) -> None:
    """Bytes that no text has for sure are refused; so is an empty key, which would make nothing safe."""
    answer = await client.post("/v1/crates", json={}, headers={b"idempotency-key": value})

    assert reason(answer) == (400, "INVALID_HEADER", "Idempotency-Key")
    assert not depot.asked


async def test_a_long_key_reaches_who_checks_lengths(client: httpx2.AsyncClient, depot: Depot) -> None:
    """The gateway does not cut it: the service that has the call refuses it, as it does in the body."""
    await client.post("/v1/crates", json={}, headers={"idempotency-key": "k" * 5000})

    assert len(depot.asked[0].request_id) == 5000


async def test_given_twice(client: httpx2.AsyncClient, depot: Depot) -> None:
    """Two of one header are refused, not the second one dropped."""
    answer = await client.post("/v1/crates", json={}, headers=[("idempotency-key", "a"), ("idempotency-key", "b")])

    assert reason(answer) == (400, "INVALID_HEADER", "Idempotency-Key")
    assert not depot.asked


@pytest.mark.parametrize(
    ("method", "path", "header", "value"),
    [
        ("PUT", "/v1/crates/a", "Idempotency-Key", "k"),
        ("DELETE", "/v1/crates/a", "Idempotency-Key", "k"),
        ("POST", "/v1/crates", "If-Match", '"t"'),
        ("GET", "/v1/crates/a", "If-Match", '"t"'),
        ("HEAD", "/v1/crates/a", "If-Match", "*"),
        ("GET", "/v1/crates:watch", "If-Match", '"t"'),
        ("POST", "/v1/crates:weigh", "If-Match", '"t"'),
        ("PUT", "/v1/crates/a", "If-None-Match", "*"),
        ("PUT", "/v1/crates/a", "If-Unmodified-Since", "Wed, 01 Dec 2027 00:00:00 GMT"),
    ],
)
async def test_a_condition_that_the_call_does_not_keep(
    client: httpx2.AsyncClient, depot: Depot, method: str, path: str, header: str, value: str
) -> None:
    """It is refused: a client that sends one relies on it."""
    content = "{}" if method in ("PUT", "POST") else None
    answer = await client.request(method, path, headers={header: value}, content=content)

    assert answer.status_code == 400
    if method != "HEAD":
        assert reason(answer) == (400, "HEADER_NOT_SUPPORTED", header)
    assert not depot.asked


@pytest.mark.parametrize(
    ("method", "path", "header"),
    [
        ("GET", "/v1/crates/a", "Idempotency-Key"),
        ("POST", "/v1/crates:weigh", "Idempotency-Key"),
        ("GET", "/v1/crates/a", "If-None-Match"),
    ],
)
async def test_a_condition_without_effect(
    client: httpx2.AsyncClient, depot: Depot, method: str, path: str, header: str
) -> None:
    """A call that changes nothing is safe to repeat, so a key may be there; a cache's question is answered in full."""
    answer = await client.request(method, path, headers={header: '"k"'}, content="{}" if method == "POST" else None)

    assert answer.status_code == 200
    assert len(depot.asked) == 1


async def test_the_default_dialect(depot: Depot) -> None:
    """Fields that headers carry are filled there, too; other conditions are metadata, as in grpc-gateway."""
    async with client_of(depot, Options()) as client:
        made = await client.post("/v1/crates", json={}, headers={"idempotency-key": "k", "if-match": "x"})

    assert made.status_code == 201
    assert depot.asked[0].request_id == "k"


# Of an answer


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_an_etag(client: httpx2.AsyncClient, depot: Depot, method: str) -> None:
    """It is quoted in the header and bare in the body; with ``response_body`` it is that message's."""
    depot.answer = {"crate": "a", "etag": "t-1"}
    answer = await client.request(method, "/v1/crates/a")

    assert answer.headers["etag"] == '"t-1"'
    if method != "HEAD":
        assert answer.json()["etag"] == "t-1"


async def test_an_etag_that_comes_back(client: httpx2.AsyncClient, depot: Depot) -> None:
    """The header of an answer is an If-Match as it is."""
    depot.answer = {"etag": "t-1!#[]~"}
    await put(client, (await client.get("/v1/crates/a")).headers["etag"])

    assert depot.asked[-1].etag == "t-1!#[]~"


@pytest.mark.parametrize("etag", ["", "a b", 'a"b', "a\r\nx: y", "ü"])
async def test_no_etag(client: httpx2.AsyncClient, depot: Depot, etag: str) -> None:
    """A field that is empty, or could not be in a header, makes none."""
    depot.answer = {"etag": etag}
    answer = await client.get("/v1/crates/a")

    assert answer.status_code == 200
    assert "etag" not in answer.headers
    assert "x" not in answer.headers


@pytest.mark.parametrize(("headers", "status"), [({"if-match": '"t"'}, 412), ({}, 409)])
async def test_a_condition_that_failed(
    client: httpx2.AsyncClient, depot: Depot, headers: dict[str, str], status: int
) -> None:
    """ABORTED is 412 where the request had If-Match, and 409 where not; the code in the body is the same."""
    depot.failure = 10
    answer = await client.delete("/v1/crates/a", headers=headers)

    assert answer.status_code == status
    assert (answer.json()["code"], answer.json()["status"]) == (10, "ABORTED")


# Bodies


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 201),
        ("application/json", 201),
        ("Application/JSON; charset=UTF-8", 201),
        ("application/json;charset=utf-8", 201),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/merge-patch+json", 415),
        ("application/x-ndjson", 415),
        ("", 415),
        ("json", 415),
    ],
)
async def test_a_body_is_json(client: httpx2.AsyncClient, content_type: str | None, status: int) -> None:
    """A type that is not JSON is 415 with the type that is; no type at all is taken for JSON."""
    headers = {} if content_type is None else {"content-type": content_type}
    answer = await client.post("/v1/crates", content="{}", headers=headers)

    assert answer.status_code == status
    if status == 415:
        assert reason(answer) == (415, "UNSUPPORTED_MEDIA_TYPE", "")
        assert answer.headers["accept"] == "application/json"


@pytest.mark.parametrize("accept", ["text/html", "application/xml;q=1, */*;q=0", "text/event-stream", ""])
async def test_an_answer_is_json_whatever_is_accepted(client: httpx2.AsyncClient, accept: str) -> None:
    """Accept is ignored where there is one form: an answer that a client did not ask for tells it more than 406."""
    answer = await client.get("/v1/crates/a", headers={"accept": accept})

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")


async def test_an_empty_body_has_no_type(client: httpx2.AsyncClient) -> None:
    """What is not there cannot be of a wrong type."""
    answer = await client.post("/v1/crates", content="", headers={"content-type": "text/plain"})

    assert answer.status_code == 201


@pytest.mark.parametrize(("body", "status"), [("", 200), ("{}", 200), (" {} ", 200), ('{"validate_only":true}', 400)])
async def test_a_body_that_no_field_takes(client: httpx2.AsyncClient, depot: Depot, body: str, status: int) -> None:
    """A DELETE that asks for something in its body is refused, because it would be ignored."""
    answer = await client.request("DELETE", "/v1/crates/a", content=body)

    assert answer.status_code == status
    assert len(depot.asked) == (status == 200)
    if status == 400:
        assert reason(answer) == (400, "BODY_NOT_SUPPORTED", "")


# Two values for one field


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PUT", "/v1/crates/a", {"crate": "b"}, "crate.crate"),
        ("PATCH", "/v1/crates/a", {"crate": "b", "weight": 1}, "crate.crate"),
        ("POST", "/v1/crates/a:open", {"crate": "b"}, "crate"),
    ],
)
async def test_another_id_than_the_paths(
    client: httpx2.AsyncClient, depot: Depot, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    """A body that names another resource than the path is refused with the field; the same one is fine."""
    answer = await client.request(method, path, json=body)
    same = await client.request(method, path, json={**body, "crate": "a"})

    assert reason(answer) == (400, "VALUE_CONFLICT", field)
    assert '"a"' in answer.json()["message"]
    assert same.status_code == 200
    assert len(depot.asked) == 1


async def test_an_id_in_the_body_is_not_masked(client: httpx2.AsyncClient, depot: Depot) -> None:
    """The mask of a PATCH has what is to be changed, not the id that the path names already."""
    await client.patch("/v1/crates/a", json={"crate": "a", "weight": 1, "labels": {"x": "y"}})

    assert list(depot.asked[0].update_mask.paths) == ["labels", "weight"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("crate.crate=a", 200),
        ("crate.crate=b", 400),
        ("crate.weight=5", 200),
        ("crate.weight=6", 400),
        ("crate.weight=0", 400),
        ("crate.state=NEW", 400),
        ("crate.tags=x&crate.tags=y", 200),
        ("crate.tags=x", 400),
        ("crate.labels[k]=v", 200),
        ("crate.labels[k]=w", 400),
        ("crate.labels[l]=v", 400),
        ("crate.inside.weight=7", 200),
        ("crate.inside.weight=8", 400),
        ("crate.inside.crate=a", 400),
        ("crate.nope=1", 400),
    ],
)
async def test_a_parameter_that_repeats(client: httpx2.AsyncClient, query: str, status: int) -> None:
    """A parameter may repeat what path or body have, and must not differ."""
    body = {"weight": 5, "tags": ["x", "y"], "labels": {"k": "v"}, "inside": {"weight": 7}}
    answer = await client.put(f"/v1/crates/a?{query}", json=body)

    assert answer.status_code == status, answer.text
    if status == 400:
        assert reason(answer)[2] == query.partition("=")[0]


@pytest.mark.parametrize(
    ("query", "status", "paths"),
    [
        ("update_mask=weight,labels", 200, ["weight", "labels"]),
        ("update_mask=", 400, []),
        ("update_mask=weight,", 400, []),
        ("", 200, ["tags", "weight"]),
    ],
)
async def test_a_mask_in_the_query(
    client: httpx2.AsyncClient, depot: Depot, query: str, status: int, paths: list[str]
) -> None:
    """It replaces the one that the body implies; a path without a name is refused."""
    answer = await client.patch(f"/v1/crates/a?{query}", json={"weight": 1, "tags": []})

    assert answer.status_code == status
    assert [list(asked.update_mask.paths) for asked in depot.asked] == ([paths] if status == 200 else [])


async def test_a_repetition_in_the_default_dialect(depot: Depot) -> None:
    """The path wins, as in grpc-gateway."""
    async with client_of(depot, Options()) as client:
        answer = await client.put("/v1/crates/a?crate.crate=c", json={"crate": "b"})

    assert answer.status_code == 200
    assert depot.asked[0].crate.crate == "a"
