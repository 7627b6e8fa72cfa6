"""The API's own document held against the running server by schemathesis, which sends what the document allows and
what it forbids, and compares every answer with what it promises."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import validate

from footlights import __version__
from footlights.control.assembly import API_VERSION, openapi_document
from tests.control.harness import Control, control
from tests.gateway.served import served

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = 4
SECONDS = 240
"""It takes 20 on two cores that have nothing else to do."""
CONFIG = """
# Bounds of the transport are refused with statuses of their own, and a session that has no picture yet says when to
# come back: 503 with Retry-After.
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "412", "413", "414", "415", "431"]
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "503"]
"""
EXCLUDED_CHECKS = "positive_data_acceptance"
"""It wants 2xx for whatever fits the document, which cannot say that a page token must be one of this list's."""
STREAMS = ":(watch|tailLog)$"
"""They have no end, so a tool that waits for whole answers cannot hold them; tests/gateway/test_mounted.py does."""


@pytest.mark.timeout(SECONDS + 60)
async def test_the_server_keeps_what_its_document_promises(plane: Control, tmp_path: Path) -> None:
    """
    Every operation but the endless and the deprecated ones passes every check but one: statuses, types, headers,
    bodies, refusals.
    """
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    await plane.create()
    async with served(plane.plane.app) as port:
        arguments = [
            "run", f"http://127.0.0.1:{port}/openapi.json", "--header", f"Authorization: Bearer {plane.admin}",
            "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1", "--no-shrink",
            "--exclude-checks", EXCLUDED_CHECKS, "--exclude-path-regex", STREAMS, "--request-timeout", "5",
            "--generation-database", "none", "--warnings", "off", "--no-color",
            "--exclude-deprecated",
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")), *arguments, cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "SCHEMATHESIS_HOOKS": "tests.gateway.schemathesis_hooks",
            "OWN_TOKEN": plane.admin.split("_")[1]},
        )  # fmt: skip
        try:
            async with asyncio.timeout(SECONDS):
                output = (await process.communicate())[0].decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    print(output[output.find("= SUMMARY") :])
    assert process.returncode == 0, output[-20_000:]
    tested = re.search(r"Tested: (\d+)", output)
    assert tested is not None
    assert int(tested.group(1)) >= 34


async def test_the_document_that_is_served_is_valid(plane: Control) -> None:
    """
    /openapi.json passes openapi-spec-validator, and says every binding, its 202s, its errors, its security, the paths
    beside the gateway, and the version of the API apart from that of the server.
    """
    async with served(plane.plane.app) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        found: dict[str, Any] = (await client.get("/openapi.json")).json()

    validate(json.loads(json.dumps(found)))
    operations = [operation for path in found["paths"].values() for operation in path.values()]
    assert found["openapi"].startswith("3.1")
    assert found["info"]["version"] == API_VERSION
    assert found["info"]["x-footlights-version"] == __version__
    assert found["servers"] == [{"url": "/"}]
    assert {"200", "202", "default"} <= set(found["paths"]["/stream"]["post"]["responses"])
    assert {"201", "202", "default"} <= set(found["paths"]["/v1/sessions"]["post"]["responses"])
    assert {"/v1/sessions/{session_id}/whep", "/stream/{session_id}/sign_in", "/metrics", "/readyz"} <= set(
        found["paths"]
    )
    assert found["security"] == [{"bearer": []}]
    tags = {tag["name"] for tag in found["tags"] if tag["description"]}
    for operation in operations:
        assert operation["description"], operation["operationId"]
        assert set(operation["tags"]) <= tags
        assert operation["responses"].keys() & {"default", "200"}


def test_operation_ids() -> None:
    """
    Ids are unique, and those of RPCs and of the front door are the names that clients are generated with.
    """
    found = openapi_document("https://footlights.example")
    ids = {op["operationId"]: op for path in found["paths"].values() for op in path.values()}

    assert len(ids) == sum(len(path) for path in found["paths"].values())
    assert found["servers"] == [{"url": "https://footlights.example"}, {"url": "/"}]
    assert {
        "StreamingService_CreateSession", "StreamingService_FollowSessions", "StreamingService_FollowSessions_2",
        "ApplicationStreamingService_CreateStream", "NodeService_DrainNode", "NodeService_DrainNode_2",
        "FrontDoor_OfferWhep", "FrontDoor_TrickleWhep", "FrontDoor_EndWhep", "FrontDoor_SignIn", "Health_Readyz",
    } <= ids.keys()  # fmt: skip
    for path, operations in found["paths"].items():
        published = all(op["tags"] == ["ApplicationStreamingService"] for op in operations.values())
        beside = all(op["tags"][0] in ("FrontDoor", "Health") for op in operations.values())
        for operation in operations.values():
            current = path.startswith("/v1/") or published or beside
            assert operation.get("deprecated", False) is not current, path


async def test_the_public_url_is_the_first_server(tmp_path: Path) -> None:
    """
    The document that is served names the public URL of the installation, and its own origin for those who read it here.
    """
    async with control(tmp_path, public_url="https://footlights.example/") as plane:
        found = (await plane.http.get("/openapi.json")).json()

    assert found["servers"] == [{"url": "https://footlights.example"}, {"url": "/"}]


async def test_the_application_alone_is_a_create(plane: Control) -> None:
    """
    A body with nothing but the application is valid, and the answer has all that the document requires of a session.
    """
    found = openapi_document()
    schema = {"components": found["components"], "$ref": "#/components/schemas/CreateSessionRequest"}
    body = {"application": "fake"}
    Draft202012Validator(schema).validate(body)
    async with served(plane.plane.app) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        headers = {"authorization": f"Bearer {plane.admin}"}
        answer = await client.post("/v1/sessions", json=body, headers=headers)

    assert answer.status_code == 202
    Draft202012Validator({**schema, "$ref": "#/components/schemas/Session"}).validate(answer.json())
