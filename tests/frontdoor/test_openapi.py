"""The front door's part of the OpenAPI document, held against the front door itself."""

from __future__ import annotations

import httpx2
import pytest

from footlights.frontdoor import FrontDoor
from footlights.frontdoor.openapi import fragment


def described() -> dict[str, set[str]]:
    """The methods of each path, in the document."""
    return {path: {method.upper() for method in operations} for path, operations in fragment()["paths"].items()}


@pytest.mark.parametrize("path", described())
async def test_every_path_and_method_is_there(client: httpx2.AsyncClient, path: str) -> None:
    """
    What the document has, the front door owns, with the same methods.
    """
    real = path.format(session_id="s1", resource="r")
    answer = await client.options(real)

    assert FrontDoor.owns({"type": "http", "path": real, "root_path": "", "raw_path": real.encode()})
    assert set(answer.headers["allow"].split(", ")) == {"OPTIONS", *described()[path]}
