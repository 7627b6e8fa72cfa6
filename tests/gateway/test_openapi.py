"""The document of the scratch service and of a service that uses every option.

Covers ``document``, ``schema``, ``comments``, ``docs``, ``descriptors`` and ``errors``.
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
    assert set(order["responses"]) == {"200", "202", "default"}
    assert "`PENDING`" in order["responses"]["202"]["description"]
    assert "Location" in order["responses"]["200"]["headers"]
    assert set(shop["paths"]["/v1/things/{name}"]["delete"]["responses"]) == {"204", "default"}
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
        "type": ["integer", "null"], "format": "int32", "minimum": 0, "maximum": 9, "default": 1,
        "description": "How many.",
    }  # fmt: skip
    assert schema["properties"]["labels"]["maxProperties"] == 3


def test_parameters(shop: dict[str, Any]) -> None:
    """
    Query parameters have the names that are taken, nested ones with dots, and what is lowered is not refused.
    """
    parameters = {p["name"]: p for p in shop["paths"]["/v1/things"]["get"]["parameters"]}

    assert set(parameters) == {"limit", "sort-by", "state", "filter.from_time", "filter.labels"}
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
    assert [p["in"] for p in watch["parameters"] if p["name"] == "Last-Event-ID"] == ["header"]


def test_schemas(shop: dict[str, Any]) -> None:
    """
    Messages that contain themselves end, unset messages may be null, long integers are strings.
    """
    thing = shop["components"]["schemas"]["Thing"]

    assert thing["properties"]["part_of"] == {"anyOf": [{"$ref": "#/components/schemas/Thing"}, {"type": "null"}]}
    assert thing["properties"]["revision"]["type"] == ["string", "null"]
    assert thing["properties"]["state"].keys() == {"$ref", "readOnly", "description"}
    assert thing["properties"]["create_time"]["type"] == ["string", "null"]
    assert thing["properties"]["state"]["readOnly"] is True
    assert "- `PENDING`: Not yet." in shop["components"]["schemas"]["Thing.State"]["description"]


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
