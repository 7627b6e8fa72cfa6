"""Kit's stand-in is given the relay's credentials through the whole stack, and others before they end."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
from pathlib import Path
from typing import Any

from tests.system.kit import apply, lay_out, stack_with_gpu
from tests.system.stack import until

SECRET = b"shared-with-the-relay"


async def test_kit_is_given_credentials_for_as_long_as_it_runs(tmp_path: Path) -> None:
    """Each of them is one that the relay takes, of this session; and none is in a log, or shown to a caller."""
    secret, journal = tmp_path / "turn.secret", tmp_path / "journals" / "kit"
    journal.parent.mkdir()
    secret.write_bytes(SECRET)
    options = ("--turn-urls", "turn:localhost:3478", "--turn-secret-file", str(secret), "--turn-ttl", "6s")
    async with stack_with_gpu(tmp_path, *options) as stack:
        root = lay_out(tmp_path / "kit-app", STANDIN_JOURNAL=str(journal))
        negotiates = {"KIT_PUBLIC_ADDRESS": "", "KIT_RELAY_PATH": "/v1/streaming/creds"}
        await apply(stack, "kit-108-110", KIT_ROOT=str(root), **negotiates)
        created = await stack.post("/stream", {"application": "kit-108-110"})
        await stack.session_in(created["session_id"], "READY", timeout_s=60)

        def given() -> list[dict[str, Any]]:
            return [each["creds"] for line in journal.read_text().splitlines() if "creds" in (each := json.loads(line))]

        first = given()

        async def three() -> bool:
            return len(given()) >= 3

        await until(three, timeout_s=60, what="Kit was given others")
        shown = json.dumps(await stack.get(f"/v1/sessions/{created['session_id']}"))
        logs = "".join(path.read_text() for path in (tmp_path / "stack").glob("*.log"))
        await stack.delete(f"/stream/{created['session_id']}")
        await stack.session_in(created["session_id"], "TERMINATED")

    assert first
    all_given = given()
    for each in all_given:
        digest = base64.b64encode(hmac.digest(SECRET, each["username"].encode(), hashlib.sha1)).decode()
        assert (each["stunIp"], each["stunPort"], each["password"]) == ("127.0.0.1", 3478, digest)
        assert each["username"].partition(":")[2] == created["session_id"]
        assert digest not in logs + shown
    ends = [int(each["username"].partition(":")[0]) for each in all_given]
    assert all(before < after for before, after in itertools.pairwise(ends))
