"""The document of the scratch service and of a service that uses every option.

Covers ``document``, ``requests``, ``answers``, ``schema``, ``request_schema``, ``answer_schema``, ``components``,
``comments``, ``docs``, ``descriptors`` and ``errors``.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import validate
from starlette.applications import Starlette
from starlette.testclient import TestClient

from footlights.gateway import Options, docs
from footlights.gateway.decode.names import own_name
from footlights.gateway.encode.writer import Writer
from footlights.gateway.errors import GatewayError
from footlights.gateway.openapi import Info, document
from footlights.gateway.routing.descriptors import DescriptorError, from_set
from tests.conformance.echo import service
from tests.gateway.shop import PROTO, compiled

SHELVES = """
syntax = "proto3";
package shelves.v1;
import "footlights/http/v1/annotations.proto";
import "google/api/annotations.proto";
import "google/api/field_behavior.proto";
import "google/protobuf/field_mask.proto";
option (footlights.http.v1.deprecation) = {since: "2026-12-01" sunset: "2027-12-01"};

service ShelfService {
  // Makes a shelf.
  rpc Make(MakeRequest) returns (Shelf) {
    option (google.api.http) = {
      post: "/v1/shelves" body: "*" additional_bindings: {post: "/shelves" body: "*"}};
    option (footlights.http.v1.deprecated_paths) = "/shelves";
    option (footlights.http.v1.reply) = {created: true location: "/v1/shelves/{name}" no_store: true};
  }
  // Changes a shelf.
  rpc Change(ChangeRequest) returns (ChangeResponse) {
    option (google.api.http) = {patch: "/v1/shelves/{shelf.name}" body: "shelf" response_body: "shelf"};
  }
  // Replaces a shelf.
  rpc Set(SetRequest) returns (Shelf) {
    option (google.api.http) = {put: "/v1/shelves/{shelf.name}" body: "*"};
  }
  // Use Change.
  rpc Paint(MakeRequest) returns (stream Frame) {
    option deprecated = true;
    option (google.api.http) = {get: "/v1/shelves:paint"};
    option (footlights.http.v1.reply) = {event_id: "cursor" event_type: "change"};
  }
}
message Shelf {
  string name = 1 [(google.api.field_behavior) = REQUIRED, (footlights.http.v1.rules) = {max_length: 9}];
  int64 width = 2 [(footlights.http.v1.rules) = {minimum: 1 default_value: "\\"80\\""}];
  optional bool painted = 3;
  Kind kind = 4;
  repeated Board boards = 5;
  oneof at { string wall = 6; Board board = 7; }
  string etag = 8 [(google.api.field_behavior) = OUTPUT_ONLY, (footlights.http.v1.rules) = {header: "ETag"}];
  string old = 9 [deprecated = true];
  enum Kind { KIND_UNSPECIFIED = 0; WOOD = 1; }
}
message Board { Shelf.Kind kind = 1; }
message MakeRequest {
  Shelf shelf = 1;
  string request_id = 2 [(footlights.http.v1.rules) = {header: "Idempotency-Key"}];
}
message ChangeRequest {
  Shelf shelf = 1;
  google.protobuf.FieldMask update_mask = 2;
  string etag = 3 [(footlights.http.v1.rules) = {header: "If-Match" max_length: 8}];
}
message ChangeResponse { Shelf shelf = 1; }
message SetRequest {
  Shelf shelf = 1;
  string etag = 2 [(footlights.http.v1.rules) = {header: "If-Match" max_length: 8}];
}
message Frame {
  Change change = 1; string cursor = 2;
  enum Change { CHANGE_UNSPECIFIED = 0; SET = 1; REMOVED = 2; }
}
"""
"""A resource that is given and answered, with preconditions and old paths."""


@pytest.fixture(scope="module")
def shelves() -> dict[str, Any]:
    """The document of the shelves, strict, with proto names."""
    data = compiled(SHELVES)
    options = Options(strict=True, use_proto_names=True, name_status=True, expose_headers=("idempotency-replayed",))
    info = Info("Shelves", "1", servers=("/",), bearer=True, extensions={"x-software": "0.1"})
    found = document(from_set(data, ["shelves.v1.ShelfService"]), options, info, descriptor_set=data)
    validate(json.loads(json.dumps(found)))
    return found


@pytest.fixture(scope="module")
def shop() -> dict[str, Any]:
    """The document of the shop, strict, with proto names."""
    data = compiled(PROTO)
    options = Options(strict=True, use_proto_names=True)
    return document(
        from_set(data, ["shop.v1.ShopService"]), options, Info("Shop", "1", bearer=True), descriptor_set=data
    )


@pytest.mark.parametrize("options", [Options(), Options(strict=True, use_proto_names=True)])
def test_scratch_service_is_valid(options: Options) -> None:
    """
    Every kind of field, template and stream makes a valid document.
    """
    found = document([service()], options, Info("Scratch", "1"))

    validate(json.loads(json.dumps(found)))


def test_valid(shop: dict[str, Any]) -> None:
    """
    The shop's is valid, and every reference in it leads somewhere.
    """
    validate(json.loads(json.dumps(shop)))
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(shop)))

    assert names <= set(shop["components"]["schemas"])


def test_operations(shop: dict[str, Any]) -> None:
    """
    Comments, answers, headers and security are there.
    """
    order = shop["paths"]["/v1/shops/{shop}/things"]["post"]

    assert order["operationId"] == "ShopService_Order"
    assert order["summary"] == "Orders a thing"
    assert order["description"] == "Orders a thing. It takes a while.\n\n- one\n- two"
    assert set(order["responses"]) == {"200", "202", "401", "429", "503", "default"}
    assert "`PENDING`" in order["responses"]["202"]["description"]
    assert "Location" in order["responses"]["200"]["headers"]
    assert {"204", "default"} <= set(shop["paths"]["/v1/things/{name}"]["delete"]["responses"])
    assert shop["security"] == [{"bearer": []}]
    assert shop["tags"] == [{"name": "ShopService", "description": "Sells things."}]
    assert "Status" in shop["components"]["schemas"]


def test_body(shop: dict[str, Any]) -> None:
    """
    A body leaves out what stands in the path, and says what is required and allowed.
    """
    schema = shop["paths"]["/v1/shops/{shop}/things"]["post"]["requestBody"]["content"]["application/json"]["schema"]

    assert schema["required"] == ["what"]
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {"what", "count", "labels"}
    assert schema["properties"]["what"] == {
        "type": "string", "minLength": 1, "maxLength": 5, "pattern": "^(?:[a-z]+)$", "examples": ["shoe"],
        "description": "What.",
    }  # fmt: skip
    assert schema["properties"]["count"] == {
        "anyOf": [
            {"type": "integer", "format": "int32", "minimum": 0, "maximum": 9, "default": 1}, {"type": "null"},
        ],
        "description": "How many.",
    }  # fmt: skip
    assert schema["properties"]["labels"]["maxProperties"] == 3


def test_parameters(shop: dict[str, Any]) -> None:
    """
    Query parameters have the names that are taken, nested ones with dots, and what is lowered is not refused.
    """
    found = shop["paths"]["/v1/things"]["get"]["parameters"]
    parameters = {p["name"]: p for p in found if "name" in p}

    assert set(parameters) == {"limit", "sort-by", "state", "filter.from_time", "filter.labels"}
    assert {"$ref": "#/components/parameters/X-Request-Id"} in found
    assert parameters["limit"]["schema"]["maximum"] == 2**31 - 1
    assert "lowered" in parameters["limit"]["description"]
    assert parameters["sort-by"]["schema"]["enum"] == ["name", "size", ""]
    assert parameters["filter.labels"]["style"] == "deepObject"
    assert parameters["filter.from_time"]["schema"]["format"] == "date-time"


def test_streams(shop: dict[str, Any]) -> None:
    """
    A stream is lines or events, and can be resumed.
    """
    watch = shop["paths"]["/v1/things:watch"]["get"]

    assert set(watch["responses"]["200"]["content"]) == {"application/x-ndjson", "text/event-stream"}
    assert [p["in"] for p in watch["parameters"] if p.get("name") == "Last-Event-ID"] == ["header"]


def test_schemas(shop: dict[str, Any]) -> None:
    """
    Messages that contain themselves end, unset messages may be null and scalars may not, long integers are strings.
    """
    thing = shop["components"]["schemas"]["Thing"]

    assert thing["properties"]["part_of"] == {"anyOf": [{"$ref": "#/components/schemas/Thing"}, {"type": "null"}]}
    assert thing["properties"]["revision"] == {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
    assert thing["properties"]["create_time"]["type"] == ["string", "null"]
    assert thing["properties"]["state"]["readOnly"] is True
    assert "- `PENDING`: Not yet." in shop["components"]["schemas"]["Thing.State"]["description"]


def test_answers_are_open(shelves: dict[str, Any]) -> None:
    """
    An answer has all that the gateway always prints, no bounds, and takes members and enum values that are to come.
    """
    shelf = shelves["components"]["schemas"]["Shelf"]
    check = Draft202012Validator({"$ref": "#/components/schemas/Shelf", "components": shelves["components"]})
    answer = {"name": "a" * 20, "width": "0", "kind": "STEEL", "boards": [], "etag": "", "old": "", "colour": 7}

    assert shelf["required"] == ["name", "width", "kind", "boards", "etag", "old"]
    assert "additionalProperties" not in shelf
    assert shelf["properties"]["kind"] == {"anyOf": [{"$ref": "#/components/schemas/Shelf.Kind"}, {"type": "string"}]}
    assert shelf["properties"]["old"]["deprecated"] is True
    check.validate(answer)
    check.validate({**answer, "painted": False, "board": {"kind": "WOOD"}})
    assert not check.is_valid({**answer, "width": None})
    assert not check.is_valid({**answer, "boards": [{}]})
    assert not check.is_valid({name: value for name, value in answer.items() if name != "old"})


def test_requests_are_closed(shelves: dict[str, Any]) -> None:
    """
    A request needs required members only, may have null for the rest, and has no other members, names of enum values or
    members of answers.
    """
    check = Draft202012Validator({"$ref": "#/components/schemas/ShelfInput", "components": shelves["components"]})

    check.validate({"name": "a"})
    check.validate({"name": "a", "width": 7, "painted": None, "kind": "WOOD", "boards": None, "wall": "b"})
    check.validate({"name": "a", "width": "7"})
    for wrong in ({"colour": 7}, {"etag": "x"}, {"kind": "STEEL"}, {"boards": [{"x": 1}]}, {"wall": "b", "board": {}}):
        assert not check.is_valid({"name": "a", **wrong}), wrong
    assert not check.is_valid({})
    assert not check.is_valid({"name": "a" * 10})


def test_what_the_path_has_the_body_needs_not(shelves: dict[str, Any]) -> None:
    """
    A member of the resource that a path variable sets is optional in the body.
    """
    operations = shelves["paths"]["/v1/shelves/{name}"]
    bodies = {method: op["requestBody"]["content"]["application/json"]["schema"] for method, op in operations.items()}

    assert "required" not in bodies["patch"]
    assert bodies["patch"]["properties"].keys() == shelves["components"]["schemas"]["ShelfInput"]["properties"].keys()
    assert bodies["put"]["properties"]["shelf"]["properties"].keys() == bodies["patch"]["properties"].keys()
    assert operations["patch"]["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Shelf"
    }


def test_headers(shelves: dict[str, Any]) -> None:
    """
    Fields with a header are parameters and headers of answers, one component for all; bounds are the field's own.
    """
    paths, components = shelves["paths"], shelves["components"]
    make, change = paths["/v1/shelves"]["post"], paths["/v1/shelves/{name}"]["patch"]

    def taken(operation: dict[str, Any]) -> set[str]:
        return {p["$ref"].rpartition("/")[2] for p in operation["parameters"] if "$ref" in p}

    assert taken(make) == {"Idempotency-Key", "X-Request-Id"}
    assert taken(change) == {"If-Match", "X-Request-Id"}
    assert {p["name"] for p in change["parameters"] if "name" in p} == {"name", "update_mask", "etag"}
    assert "maxLength" not in components["parameters"]["If-Match"]["schema"]
    assert components["schemas"]["Status"]["required"] == ["code", "message", "details", "status"]
    assert components["parameters"]["If-Match"]["in"] == "header"
    assert set(make["responses"]["201"]["headers"]) == {
        "ETag", "Location", "Cache-Control", "Idempotency-Replayed", "X-Request-Id",
    }  # fmt: skip
    assert set(change["responses"]["200"]["headers"]) == {"ETag", "X-Request-Id"}
    assert [p["deprecated"] for p in paths["/v1/shelves:paint"]["get"]["parameters"] if "deprecated" in p] == [True]
    assert "412" in change["responses"]
    assert "412" not in make["responses"]
    assert set(components["responses"]["Unavailable"]["headers"]) == {"Retry-After", "X-Request-Id"}
    assert "WWW-Authenticate" in components["responses"]["Unauthenticated"]["headers"]


def test_deprecation(shelves: dict[str, Any]) -> None:
    """
    Old paths and RPCs are marked, say since when, until when and what to use, and answer with the status of before.
    """
    new, old = shelves["paths"]["/v1/shelves"]["post"], shelves["paths"]["/shelves"]["post"]
    paint = shelves["paths"]["/v1/shelves:paint"]["get"]
    text = "Deprecated since 2026-12-01, may be missing from 2027-12-01"

    assert "deprecated" not in new
    assert old["deprecated"] is paint["deprecated"] is True
    assert old["description"] == f"{text}: use `POST /v1/shelves`.\n\nMakes a shelf."
    assert paint["description"] == f"{text}.\n\nUse Change."
    assert {"201"} == {status for status in new["responses"] if status.startswith("2")}
    assert {"200"} == {status for status in old["responses"] if status.startswith("2")}
    assert {"Deprecation", "Sunset", "Link"} <= set(old["responses"]["200"]["headers"])
    assert [new["operationId"], old["operationId"]] == ["ShelfService_Make", "ShelfService_Make_2"]


def test_events(shelves: dict[str, Any]) -> None:
    """
    What JSON Schema cannot say of events is said in words: their data, ids and names.
    """
    content = shelves["paths"]["/v1/shelves:paint"]["get"]["responses"]["200"]["content"]

    assert content["application/x-ndjson"]["schema"]["properties"]["result"] == {"$ref": "#/components/schemas/Frame"}
    assert "`id` is its `cursor`" in content["text/event-stream"]["schema"]["description"]
    assert "(`set`, `removed`; others may be added)" in content["text/event-stream"]["schema"]["description"]


def test_fragments() -> None:
    """
    What others serve is added as it is; an operation or component that is already there is refused.
    """
    data = compiled(SHELVES)
    services = from_set(data, ["shelves.v1.ShelfService"])
    get = {"get": {"operationId": "a", "responses": {"200": {"description": "OK."}}}}
    fragment = {
        "tags": [{"name": "More"}],
        "paths": {"/more": get, "/v1/shelves": get},
        "components": {"schemas": {"M": {}}},
    }
    found = document(services, Options(strict=True), Info("S", "1"), fragments=[fragment])

    assert found["paths"]["/more"] == get
    assert set(found["paths"]["/v1/shelves"]) == {"post", "get"}
    assert found["tags"][-1] == {"name": "More"}
    assert found["components"]["schemas"]["M"] == {}
    wrongs: list[dict[str, Any]] = [
        {"paths": {"/v1/shelves": {"post": {}}}},
        {"components": {"schemas": {"Shelf": {}}}},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="the document already has"):
            document(services, Options(strict=True), Info("S", "1"), fragments=[wrong])


def test_info(shelves: dict[str, Any]) -> None:
    """
    Servers and extensions are as they were given.
    """
    assert shelves["servers"] == [{"url": "/"}]
    assert shelves["info"] == {"title": "Shelves", "version": "1", "x-software": "0.1"}


def test_errors(shop: dict[str, Any]) -> None:
    """
    The error schema says the usual details in full, with the names that the gateway prints, and takes others.
    """
    schemas = shop["components"]["schemas"]
    detail = schemas["Status"]["properties"]["details"]["items"]["anyOf"]
    check = Draft202012Validator({"$ref": "#/components/schemas/Status", "components": shop["components"]})
    printed = Writer(spell=own_name)
    status = GatewayError(3, "m", reason="INVALID_PARAMETER", field="limit", retry_after_s=3).status(
        strict=True, domain="d.example"
    )

    assert [d["$ref"].rpartition("/")[2] for d in detail[:-1]] == [
        "ErrorInfo",
        "BadRequest",
        "RetryInfo",
        "ResourceInfo",
    ]
    assert {"@type", "field_violations"} == set(schemas["BadRequest"]["properties"])
    assert {"@type", "retry_delay"} == set(schemas["RetryInfo"]["properties"])
    body = json.loads(printed.write(status))
    assert body["details"][1]["field_violations"][0]["field"] == "limit"
    assert body["details"][2]["retry_delay"] == "3s"
    check.validate(body)
    check.validate({"code": 3, "message": "m", "details": [{"@type": "type.googleapis.com/a.B", "any": 1}]})
    body["details"][1]["fieldViolations"] = body["details"][1].pop("field_violations")
    assert not check.is_valid(body)


def test_pages(shop: dict[str, Any]) -> None:
    """
    The document and the page over it are served, mounted anywhere, and the page asks nothing of other hosts.
    """
    with TestClient(Starlette(routes=docs.routes(shop))) as client:
        assert client.get("/openapi.json").json() == shop
        page = client.get("/docs")
        assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert all(client.get("/" + asset).status_code == 200 for asset in assets)
        assert not any("//" in asset for asset in assets)
        assert client.get("/docs/../secret").status_code == 404
        assert "sourceMappingURL" not in client.get("/docs/swagger-ui-bundle.js").text


def test_descriptor_sets() -> None:
    """
    A set that is none, lacks an import or a service is refused with what is missing; well-known imports may lack.
    """
    whole = FileDescriptorSet.FromString(compiled(PROTO))
    only_own = FileDescriptorSet(file=[file for file in whole.file if file.name == "t.proto"])
    broken = FileDescriptorSet.FromString(only_own.SerializeToString())
    broken.file[0].dependency.append("nowhere.proto")

    assert [s.full_name for s in from_set(only_own.SerializeToString())] == ["shop.v1.ShopService"]
    with pytest.raises(DescriptorError, match=r"nowhere\.proto"):
        from_set(broken.SerializeToString())
    with pytest.raises(DescriptorError, match=r"choose from shop\.v1\.ShopService"):
        from_set(whole.SerializeToString(), ["shop.v1.Nope"])
    with pytest.raises(DescriptorError, match="not a descriptor set"):
        from_set(b"\xff\xff")
