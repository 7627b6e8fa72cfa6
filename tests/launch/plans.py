"""Plans for tests, rendered from recipes as the agent renders them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from footlights.agent.v1.agent_pb2 import Assignment
from footlights.v1.application_pb2 import Version
from google.protobuf.duration_pb2 import Duration

from footlights.devices.kinds import traits_of_kind
from footlights.launch import plan as plans
from footlights.launch.launcher import DeviceAccess, LaunchPlan, Ports
from footlights.protocol import counterparts

CLUSTER = f"test-{uuid.uuid4()}"
"""The mark of this run: nothing that carries it may be left at its end."""
PORTS = Ports(signal=29100, media=29101, http=29102)


def make_plan(
    version: Version,
    root: Path,
    *,
    ports: Ports = PORTS,
    arguments: Mapping[str, Any] | None = None,
    usd_stage_uri: str = "",
    device_kind: str = "SOFTWARE",
    device_uuid: str = "software-0",
    device_index: int = 0,
    grace_s: float = 5.0,
    public_address: str = "127.0.0.1",
    launch_id: str = "",
    own_network: bool = False,
) -> LaunchPlan:
    """Render one launch of ``version`` in a directory of its own below ``root``."""
    launch_id = launch_id or f"l-{uuid.uuid4()}"
    assignment = Assignment(
        launch_id=launch_id,
        session_id=f"s-{launch_id}",
        device_uuid=device_uuid,
        version=counterparts.recipe(version),
        usd_stage_uri=usd_stage_uri,
    )
    assignment.arguments.update(dict(arguments or {}))
    grace = Duration()
    grace.FromMilliseconds(int(grace_s * 1000))
    assignment.limits.stop_grace_period.CopyFrom(grace)
    return plans.render(
        assignment,
        ports=ports,
        public_address=public_address,
        device=access(device_kind, device_index),
        directory=root / launch_id,
        cluster_id=CLUSTER,
        own_network=own_network,
    )


def access(kind: str, index: int = 0) -> DeviceAccess:
    """How an application gets at a device of a kind, as the agent says it."""
    traits = traits_of_kind(kind)
    return DeviceAccess(kind, index, traits.variables, traits.cdi_class, traits.hardware)


def command(*tokens: str) -> Version:
    """A version that runs ``tokens`` as they are."""
    return Version(version="1.0.0", command=[token.replace("{", "{{").replace("}", "}}") for token in tokens])


def script(text: str) -> Version:
    """A version that runs a shell script."""
    return command("/bin/sh", "-c", text)


def lines_of(parts: Sequence[str]) -> str:
    return "\n".join(parts)
