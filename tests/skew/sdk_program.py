"""A session's life through the SDK, as a program: run with the code of either release. Prints what it saw as JSON."""

from __future__ import annotations

import asyncio
import json
import sys

from footlights.v1 import application_pb2, node_pb2, session_pb2
from google.protobuf.duration_pb2 import Duration

from footlights.client import Client

FAKE = application_pb2.Version(version="1.0.0", fake=application_pb2.FakeBehavior())
FAKE.limits.stop_grace_period.seconds = 1
FAKE.limits.max_duration.seconds = 600
FAKE.signaling.whep_path = "/whep"


async def main(address: str, token: str) -> None:
    """Make every kind of call that both releases have, and read every kind of answer."""
    seen: dict[str, object] = {}
    async with Client.connect(address, token) as client:
        manifest = application_pb2.ApplyApplicationRequest(
            application=application_pb2.Application(application="sdk"), versions=[FAKE], releases={"default": "1.0.0"}
        )
        await client.applications.apply(manifest)
        seen["applications"] = [item.application for item in (await client.applications.list()).items]
        seen["versions"] = [item.version for item in (await client.applications.list_versions("sdk")).items]
        request = session_pb2.CreateSessionRequest(
            application="sdk", max_duration=Duration(seconds=60), labels={"team": "a"}
        )
        made = await client.sessions.create(request)
        ready = await client.sessions.wait_ready(made.session_id, timeout_s=60)
        seen["state"] = session_pb2.Session.State.Name(ready.state)
        seen["max_duration"] = ready.max_duration.seconds
        listed = await client.sessions.list(session_pb2.ListSessionsRequest(application="sdk"))
        seen["listed"] = made.session_id in [item.session_id for item in listed.items]
        seen["grant"] = bool((await client.sessions.connect(made.session_id)).token)
        seen["extended"] = (await client.sessions.extend(made.session_id, 60)).max_duration.seconds
        explained = await client.sessions.explain(session_pb2.ExplainPlacementRequest(application="sdk"))
        seen["explained"] = len(explained.nodes)
        seen["log"] = len((await client.sessions.log(made.session_id)).lines) >= 0
        nodes = (await client.nodes.list()).items
        seen["nodes"] = [node_pb2.Node.State.Name(node.state) for node in nodes]
        seen["tokens"] = len((await client.tokens.list()).items) > 0
        await client.sessions.terminate(made.session_id)
        over = await client.sessions.wait_ended(made.session_id, timeout_s=60)
        seen["ended"] = session_pb2.Session.State.Name(over.state)
        seen["end_reason"] = session_pb2.Session.EndReason.Name(over.end_reason)
    print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
