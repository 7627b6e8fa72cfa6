"""Strict mode over real HTTP: what is wrong is refused in plain words, with details.

Covers ``endpoint``, ``exchange``, ``decode.body_reader`` and ``upstream.metadata``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from footlights.gateway import Options
from tests.conformance.server import Running, serving

OPTIONS = Options(
    strict=True,
    use_proto_names=True,
    error_domain="test.example",
    forward_headers=("idempotency-key",),
    expose_headers=("x-head",),
    cors_origins=("https://console.example",),
)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A strict gateway."""
    with serving(OPTIONS) as found:
        yield found


@pytest.fixture
def client(running: Running) -> Iterator[httpx2.Client]:
    """A client of it."""
    with httpx2.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=10) as found:
        yield found


def details(answer: httpx2.Response) -> dict[str, Any]:
    """The details of an error by type."""
    return {detail["@type"].rpartition(".")[2]: detail for detail in answer.json()["details"]}


def test_no_second_credential(client: httpx2.Client) -> None:
    """
    Authorization alone is a credential: the same as metadata by its prefix is dropped, whatever its case.
    """
    both = client.get("/v1/things/a", headers={"Authorization": "Bearer a", "Grpc-Metadata-Authorization": "Bearer b"})
    one = client.get("/v1/things/a", headers={"GRPC-METADATA-AUTHORIZATION": "Bearer b", "Grpc-Metadata-X": "c"})

    assert both.json()["metadata"]["authorization"] == '"Bearer a"'
    assert "authorization" not in one.json()["metadata"]
    assert one.json()["metadata"]["x"] == '"c"'


def test_wrong_method(client: httpx2.Client) -> None:
    """
    A wrong method is 405 with Allow.
    """
    answer = client.put("/v1/things/a")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"
    assert "PUT" in answer.json()["message"]
    assert details(answer)["ErrorInfo"]["reason"] == "METHOD_NOT_ALLOWED"


def test_wrong_path(client: httpx2.Client) -> None:
    """
    A path where nothing is is 404 and says so.
    """
    answer = client.get("/nope")

    assert answer.status_code == 404
    assert "/nope" in answer.json()["message"]


@pytest.mark.parametrize(
    ("method", "target", "body", "field", "words", "reason"),
    [
        ("GET", "/v1/things?num32=abc", None, "num32", ["num32", '"abc"', "integer"], "INVALID_PARAMETER"),
        ("GET", "/v1/things?colour=red", None, "colour", ["colour", "num32"], "UNKNOWN_FIELD"),
        ("GET", "/v1/things?thing.nope=1", None, "thing.nope", ["thing.nope", "size"], "UNKNOWN_FIELD"),
        ("GET", "/v1/things/a?name=b", None, "name", ["name", "path"], "INVALID_PARAMETER"),
        ("GET", "/v1/nums/x", None, "num32", ["num32", '"x"', "integer"], "INVALID_PARAMETER"),
        ("GET", "/v1/kinds/BIG", None, "kind", ['"BIG"', "KIND_SMALL"], "UNKNOWN_VALUE"),
        ("POST", "/v1/all/p?x=1", "{}", "x", ["x", "body"], "UNKNOWN_FIELD"),
        ("POST", "/v1/all/p", '{"nme":1}', "nme", ["nme", "name"], "UNKNOWN_FIELD"),
        ("POST", "/v1/all/p", '{"thing":{"kind":"BIG"}}', "thing.kind", ['"BIG"', "KIND_SMALL"], "UNKNOWN_VALUE"),
        ("POST", "/v1/all/p", '{"tags":["a",null]}', "tags[1]", ["tags[1]", "string"], "INVALID_MEMBER"),
        ("POST", "/v1/all/p", '{"num32":1,"num32":2}', "num32", ["num32", "twice"], "DUPLICATE_MEMBER"),
        ("POST", "/v1/all/p", '{"renamed":"a","newName":"b"}', "newName", ["twice"], "DUPLICATE_MEMBER"),
        ("POST", "/v1/all/p", "{} x", "", ["more follows"], "INVALID_JSON"),
        ("POST", "/v1/all/p", '{"a"', "", ["not JSON", "line 1"], "INVALID_JSON"),
        ("POST", "/v1/all/p", "[]", "body", ["object", "array"], "INVALID_MEMBER"),
        ("POST", "/v1/string", "5", "parent", ["string"], "INVALID_MEMBER"),
        ("GET", "/v1/things?a=%zz", None, "", ["%zz", "%25"], "INVALID_URL"),
        ("GET", "/v1/things?a=1;b=2", None, "", [";"], "INVALID_URL"),
        ("GET", "/v1/simple/%zz", None, "", ["%zz"], "INVALID_URL"),
        ("GET", "/v1/simple/%ff", None, "", ["UTF-8"], "INVALID_URL"),
    ],
)
def test_refusals(
    running: Running, method: str, target: str, body: str | None, field: str, words: list[str], reason: str
) -> None:
    """
    Every mistake is 400 with a message that names the field and the value, exactly one ErrorInfo, and BadRequest.
    """
    from tests.conformance.recording import Case, send

    status, headers, text = send(running.port, Case("x/x", method, target, [], body or "", {}))
    answer = httpx2.Response(status, text=text)

    assert status == 400, text
    assert dict(headers)["content-type"] == "application/json"
    assert answer.json()["code"] == 3
    assert all(word in answer.json()["message"] for word in words), answer.json()["message"]
    found = details(answer)
    assert (found["ErrorInfo"]["reason"], found["ErrorInfo"]["domain"]) == (reason, "test.example")
    assert ("BadRequest" in found) == bool(field)
    if field:
        assert [v["field"] for v in found["BadRequest"]["field_violations"]] == [field]


def test_both_spellings(client: httpx2.Client) -> None:
    """
    Bodies and queries take the JSON name and the proto name; a hand-set JSON name is what is printed.
    """
    for name in ("newName", "renamed"):
        assert client.post("/v1/all/p", content=f'{{"{name}":"v"}}').json()["request"]["newName"] == "v"
        assert client.get(f"/v1/things?{name}=v").json()["request"]["newName"] == "v"
    assert client.get("/v1/things?num_32=1").status_code == 400
    assert client.get("/v1/things?updateMask=a").json()["request"]["update_mask"] == "a"


def test_unauthenticated(client: httpx2.Client) -> None:
    """
    401 asks for a bearer token, and the message is not in the header.
    """
    answer = client.get("/v1/fail/16?name=no%20token")

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["message"] == "no token"


def test_details_are_forwarded(client: httpx2.Client) -> None:
    """
    Details that the server attached come out as JSON.
    """
    answer = client.get("/v1/fail/3?name=bad&flag=true")

    assert answer.status_code == 400
    assert answer.json()["details"][0]["reason"] == "R"
    assert answer.json()["details"][1]["@type"] == "type.googleapis.com/gatewaytest.v1.Thing"


def test_request_id(client: httpx2.Client) -> None:
    """
    A request id is taken, else made, and is on every answer, refusals included; the server sees it.
    """
    given = client.get("/v1/things", headers={"x-request-id": "mine-1"})
    minted = client.get("/nope").headers["x-request-id"]

    assert given.headers["x-request-id"] == "mine-1"
    assert given.json()["metadata"]["x-request-id"] == '"mine-1"'
    assert len(minted) == 36
    assert client.get("/nope").headers["x-request-id"] != minted
    unsound = client.get("/v1/things", headers={"x-request-id": "x" * 500}).headers["x-request-id"]
    assert len(unsound) == 36


def test_headers_by_name(client: httpx2.Client) -> None:
    """
    Headers that the options name pass unprefixed, both ways.
    """
    answer = client.get("/v1/things", headers={"Idempotency-Key": "k"})

    assert answer.json()["metadata"]["idempotency-key"] == '"k"'
    assert answer.headers["x-head"] == "h1, h2"


def test_cors(client: httpx2.Client) -> None:
    """
    An allowed origin may read answers and may ask before; another one gets no leave.
    """
    origin = {"origin": "https://console.example"}
    answer = client.get("/nope", headers=origin)
    asked = client.options(
        "/v1/things/a",
        headers={
            **origin,
            "access-control-request-method": "DELETE",
            "access-control-request-headers": "authorization",
        },
    )

    assert answer.headers["access-control-allow-origin"] == origin["origin"]
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"etag", "location", "retry-after", "x-request-id", "x-head"} <= set(exposed)
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-methods"] == "DELETE, GET, PATCH"
    assert asked.headers["access-control-allow-headers"] == "authorization"
    assert "access-control-allow-origin" not in client.get("/nope", headers={"origin": "https://other.example"}).headers
