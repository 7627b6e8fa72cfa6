"""What the tool of test_schemathesis does not know by itself; it imports this module."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

OWN_TOKEN = os.environ.get("OWN_TOKEN", "")
"""The id of the token that the tool calls with."""

schemathesis.serializer.alias(["application/sdp", "application/trickle-ice-sdpfrag"], "text/plain")


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    """Leave out what proves nothing.

    The gateway reads numbers for enums in queries, as protojson does, and the document has their names only. Without
    its own token, the tool is refused everything. It takes If-Match without quotes for right, whatever the pattern.
    """
    given: list[dict[str, Any] | None] = [case.query, case.path_parameters, dict(case.headers or {})]
    query, path, headers = (found or {} for found in given)
    if str(query.get("view", "")).isdigit() or path.get("token_id") == OWN_TOKEN:
        return False
    return str(headers.get("If-Match", "*")).startswith(("*", '"'))
