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
    view = str((case.query or {}).get("view", ""))
    match = str((case.headers or {}).get("If-Match", "*"))
    own = (case.path_parameters or {}).get("token_id") == OWN_TOKEN
    return not view.isdigit() and not own and (match == "*" or match.startswith('"'))
