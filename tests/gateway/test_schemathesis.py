"""The API's own document held against the running server by schemathesis, which sends what the document allows and
what it forbids, and compares every answer with what it promises."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import httpx2
from openapi_spec_validator import validate

from tests.control.harness import Control
from tests.gateway.served import served

EXAMPLES = 4
CONFIG = """
# Bounds of the transport are refused with statuses of their own, and a session that has no picture yet says when to
# come back: 503 with Retry-After.
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "413", "414", "431"]
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "503"]
"""
EXCLUDED_CHECKS = "positive_data_acceptance"
"""It wants 2xx for whatever fits the document, which cannot say that a page token must be one of this list's."""
STREAMS = ":(watch|tailLog)$"
"""They have no end, so a tool that waits for whole answers cannot hold them; tests/gateway/test_mounted.py does."""


async def test_the_server_keeps_what_its_document_promises(plane: Control, tmp_path: Path) -> None:
    """
    Every operation but the endless ones passes every check but one: statuses, types, headers, bodies, refusals.
    """
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    await plane.create()
    async with served(plane.plane.app) as port:
        arguments = [
            "run", f"http://127.0.0.1:{port}/openapi.json", "--header", f"Authorization: Bearer {plane.admin}",
            "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1", "--no-shrink",
            "--exclude-checks", EXCLUDED_CHECKS, "--exclude-path-regex", STREAMS, "--request-timeout", "5",
            "--generation-database", "none", "--warnings", "off", "--no-color",
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")), *arguments, cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(90):
            output = (await process.communicate())[0].decode()

    print(output[output.find("= SUMMARY") :])
    assert process.returncode == 0, output[-20_000:]
    tested = re.search(r"Tested: (\d+)", output)
    assert tested is not None
    assert int(tested.group(1)) >= 34


async def test_the_document_that_is_served_is_valid(plane: Control) -> None:
    """
    /openapi.json passes openapi-spec-validator, and says every binding, its 202s, its errors and its security.
    """
    async with served(plane.plane.app) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        found: dict[str, Any] = (await client.get("/openapi.json")).json()

    validate(json.loads(json.dumps(found)))
    operations = [operation for path in found["paths"].values() for operation in path.values()]
    assert found["openapi"].startswith("3.1")
    assert {"200", "202", "default"} <= set(found["paths"]["/stream"]["post"]["responses"])
    assert found["security"] == [{"bearer": []}]
    for operation in operations:
        assert operation["description"], operation["operationId"]
        assert operation["responses"]["default"] == {"$ref": "#/components/responses/Error"}
