"""An agent with a real container engine: a session's whole life, on real podman and Docker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from footlights.agent.v1.agent_pb2 import LaunchReport
from footlights.v1.application_pb2 import Presence, Signaling, Version

from footlights.agent.config import AgentConfig
from footlights.agent.devices.ports import why_taken
from footlights.agent.launches.probes import ApplicationProbes
from footlights.agent.main import Agent
from footlights.devices.fake import FakeDevices
from footlights.launch.container.launcher import ContainerLauncher
from footlights.launch.container.rules import ContainerRules
from footlights.launch.launcher import Ports
from tests.agent.conftest import PACE, Machine, assignment, stopped
from tests.agent.hub import Hub
from tests.agent.test_isolation import Running
from tests.hostile.engines import IMAGE, RealEngine, real_engine
from tests.launch import knocking

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

APPLICATION = """
import http.server, sys, threading
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path in ("/v1/streaming/ready", "/whep") else 404)
        self.end_headers()
for port in sys.argv[1:]:
    server = http.server.ThreadingHTTPServer(("0.0.0.0", int(port)), Answer)
    threading.Thread(target=server.serve_forever).start()
"""


@pytest.fixture(scope="module", params=["docker", "podman"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    with real_engine(request.param, tmp_path_factory.mktemp(request.param)) as engine:
        yield engine


async def test_a_session_in_a_container(real: RealEngine, hub: Hub, config: AgentConfig, machine: Machine) -> None:
    """It becomes ready on its published ports, its door lets in the secret alone, and its end frees what it held."""
    launcher = ContainerLauncher(config.data_dir / "launches", [real.engine], ContainerRules())
    agent = Agent(
        replace(config, launchers=("container",)),
        devices=FakeDevices(lambda: machine.state),
        launchers={"container": launcher},
        probes=ApplicationProbes(),
        pace=PACE,
    )
    command = ["/usr/bin/python3", "-I", "-c", APPLICATION, "{http_port}", "{signal_port}"]
    version = Version(version="1.0.0", command=command, signaling=Signaling(whep_path="/whep"))
    version.presence.source = Presence.CONNECTIONS
    version.container.image = IMAGE
    async with Running(agent):
        await hub.until(lambda: hub.connections)
        wanted = assignment("launch-1", version, launch_secret="the-secret")
        await hub.want(wanted)
        ready = await hub.until_state("launch-1", LaunchReport.READY)

        assert await knocking.status(ready.signal_port, "the-secret", "/whep") == 200
        assert await knocking.status(ready.signal_port, "another", "/whep") == 401
        await hub.until(lambda: hub.reports["launch-1"].HasField("viewers") and hub.reports["launch-1"].viewers == 0)

        await hub.want(stopped(wanted))
        await hub.until_state("launch-1", LaunchReport.EXITED)
        await asyncio.wait_for(agent.table.none_left.wait(), 20)
    assert why_taken(Ports(ready.signal_port, ready.media_port, ready.http_port)) == ""
