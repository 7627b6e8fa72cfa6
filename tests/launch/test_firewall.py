"""The packet filter of a node: what it holds, that nft takes it, and what it lets through around real containers."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from footlights.errors import FailedPrecondition, InvalidArgument
from footlights.launch import firewall
from footlights.launch.container.launcher import ContainerLauncher
from footlights.launch.container.rules import ContainerRules
from footlights.launch.firewall import FirewallSettings
from footlights.launch.launcher import LaunchPlan, Ports
from tests.hostile.engines import IMAGE, RealEngine, cable, own_network, real_engine
from tests.launch.plans import command, make_plan
from tests.launch.waiting import ended, logged

NODE, VIEWER = "198.51.100.1", "198.51.100.2"
CREDENTIALS, PRIVATE, NEAR = "169.254.169.254", "10.9.9.9", "10.9.9.10"
PORTS = Ports(signal=29400, media=29401, http=29402)
INNER = 29407
"""A port of signalling with the agent before it: the last of the block at 29404."""
SETTINGS = FirewallSettings(
    first_port=29400, last_port=29499, denied_networks=("10.0.0.0/8",), allowed_networks=(NEAR,)
)
SERVE = """
import socketserver, sys
class Handler(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(b"reached")
socketserver.ThreadingTCPServer.allow_reuse_address = True
server = socketserver.ThreadingTCPServer(("0.0.0.0", int(sys.argv[1])), Handler)
print("up", flush=True)
server.serve_forever()
"""
TRY = """
import socket, sys, threading
def reached(where):
    host, _, port = where.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 2) as client:
            return client.recv(100) == b"reached"
    except OSError:
        return False
print(*[where for where in sys.argv[1:] if reached(where)], flush=True)
"""
CONTAINER = f"""
import subprocess, sys
for port in int(sys.argv[1]), int(sys.argv[1]) + 2:
    server = subprocess.Popen([sys.executable, "-I", "-c", {SERVE!r}, str(port)])
subprocess.run([sys.executable, "-I", "-c", {TRY!r}, *sys.argv[2:]])
try:
    print(*["v6:" + line.split()[-1] for line in open("/proc/net/if_inet6")], flush=True)
except OSError:
    pass
print("done", flush=True)
server.wait()
"""


def test_what_a_rule_is_made_of_is_checked() -> None:
    """Nothing that is no network gets into the rules; one in another is written once."""
    members: list[dict[str, Any]] = [
        {"denied_networks": ("10.0.0.0/8; flush ruleset",)},
        {"allowed_networks": ("10.0.0.1/8",)},
        {"container_subnets": "10.0.0.0/8"},
        {"container_subnets": "fd00::/16"},
    ]
    for wrong in members:
        with pytest.raises(InvalidArgument, match=next(iter(wrong))):
            FirewallSettings(**wrong)
    text = firewall.rules(FirewallSettings(denied_networks=("10.0.0.0/8", "10.1.0.0/16", "fd00::/8")))
    assert "10.1.0.0/16" not in text
    assert "10.0.0.0/8" in text
    assert "169.254.0.0/16" in text


def test_inner_ports_are_the_last_of_each_block() -> None:
    """Of every block of the range, as ports are given to launches: those of the front door and of media stay open."""
    text = firewall.rules(FirewallSettings(first_port=29400, last_port=29410))
    assert "elements = { 29402-29403, 29406-29407 }" in text
    block = Ports(signal=29404, media=29405, http=29406, splice=29407)
    assert (block.with_splice().entrance, block.with_splice().signal) == (29404, INNER)
    assert (block.without_splice().entrance, block.without_splice().splice) == (29404, 0)


def test_containers_have_addresses_of_their_own() -> None:
    """No two launches of a node have one network, and none that which containers share elsewhere."""
    parts = {firewall.part_of("10.213.0.0/16", number) for number in range((65536 - 1024) // 4)}
    assert len(parts) == 16128
    assert max(parts, key=lambda text: tuple(map(int, text[:-3].split(".")))) == "10.213.251.252/30"
    assert firewall.shared_part_of("10.213.0.0/16") == "10.213.252.0/22"


def test_a_node_says_where_other_rules_hold(tmp_path: Path) -> None:
    """Without any, with those of other settings, and with those that someone else wrote."""
    noted = tmp_path / "noted"
    assert "is not loaded" in firewall.shortcoming(SETTINGS, noted=noted)
    noted.write_text(firewall.rules(FirewallSettings()))
    if os.geteuid() == 0:
        assert "is another one" in firewall.shortcoming(SETTINGS, noted=noted)
        noted.write_text(firewall.rules(SETTINGS))
        assert firewall.shortcoming(SETTINGS, noted=noted) == ""
        os.chown(noted, 1234, -1)
    assert "is not loaded" in firewall.shortcoming(SETTINGS, noted=noted)


@pytest.fixture
def network() -> Iterator[None]:
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin"):
        pytest.skip("needs root, ip and nft")
    with own_network():
        yield


def test_inner_ports_are_reached_over_loopback_alone(network: None, tmp_path: Path) -> None:
    """An application that listens on every address is not reached past the agent's door, also not on the node."""
    with cable(NODE, VIEWER) as there:
        servers = [serve(port) for port in (29400, 29401, 29402, INNER)]
        wanted = [f"{host}:{port}" for host in (NODE, "127.0.0.1") for port in (29400, 29402, INNER)]
        outside = [where for where in wanted if where.startswith(NODE)]
        try:
            assert tried(there, *outside) == outside
            firewall.load(SETTINGS, noted=tmp_path / "noted")
            assert tried(there, *outside) == [f"{NODE}:29400"]
            assert tried((), *wanted) == [f"{NODE}:29400", *(w for w in wanted if w.startswith("127"))]
            firewall.load(SETTINGS, noted=tmp_path / "noted")  # again, as at each start of the agent
            assert firewall.shortcoming(SETTINGS, noted=tmp_path / "noted") == ""
        finally:
            for server in servers:
                stop(server)


def test_rules_that_cannot_be_loaded(network: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is said, and what was loaded before is not taken for loaded any more."""
    (tmp_path / "noted").write_text(firewall.rules(SETTINGS))
    (tmp_path / "nft").write_text("#!/bin/sh\necho not permitted >&2; exit 1\n")
    (tmp_path / "nft").chmod(0o755)
    monkeypatch.setattr(os, "defpath", str(tmp_path))
    with pytest.raises(FailedPrecondition, match="not permitted"):
        firewall.load(SETTINGS, noted=tmp_path / "noted")
    assert "is not loaded" in firewall.shortcoming(SETTINGS, noted=tmp_path / "noted")


@pytest.fixture(scope="module", params=["docker", "podman"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    with real_engine(request.param, tmp_path_factory.mktemp(request.param)) as engine:
        yield engine


@pytest.fixture
async def launcher(real: RealEngine, root: Path) -> AsyncIterator[ContainerLauncher]:
    made = ContainerLauncher(root, [real.engine], ContainerRules())
    yield made
    await made.close()


@pytest.mark.real
@pytest.mark.timeout(300)
async def test_what_a_container_reaches(launcher: ContainerLauncher, root: Path, tmp_path: Path) -> None:
    """With the rules: neither a cloud's credentials, nor denied networks, nor the node, nor another session.

    What the operator allows, and everything else, is reached; and so is the container, by viewers and the agent, but by
    nobody past the ports that are published, who routes to its own addresses by way of the node.
    """
    with cable(NODE, VIEWER, CREDENTIALS, PRIVATE, NEAR) as there:
        servers = [serve(80, there), serve(8000)]
        public, allowed = f"{VIEWER}:80", f"{NEAR}:80"
        hidden = [f"{CREDENTIALS}:80", f"{PRIVATE}:80", f"{NODE}:8000"]
        gateways = ["10.213.252.1:8000", f"{first_address()}:8000"]
        try:
            first = await reached(launcher, root, public, allowed, *hidden, past=there)
            assert first == {public, allowed, *hidden}, "what is not filtered is reached"

            firewall.load(SETTINGS, noted=tmp_path / "noted")

            assert await reached(launcher, root, public, allowed, *hidden, *gateways, there=there) == {public, allowed}
        finally:
            for server in servers:
                stop(server)


async def reached(
    launcher: ContainerLauncher,
    root: Path,
    *where: str,
    there: tuple[str, ...] = (),
    past: tuple[str, ...] = (),
) -> set[str]:
    """Run a container that tries, beside another one.

    With ``there`` it must be reached itself meanwhile, and not past its published ports; with ``past`` so too.
    """
    plan = plan_of(root, PORTS, *where)
    await launcher.start(plan, b"{}")
    try:
        said = await logged(launcher, plan, "done")
        if there:
            assert await asyncio.to_thread(tried, there, f"{NODE}:{PORTS.signal}") == [f"{NODE}:{PORTS.signal}"]
            assert await asyncio.to_thread(tried, (), f"127.0.0.1:{PORTS.signal}")
            assert not await asyncio.to_thread(tried, there, *own_addresses())
        if past:
            assert len(await asyncio.to_thread(tried, past, *own_addresses())) == 2
    finally:
        await launcher.stop(plan, kill=True)
        await ended(launcher, plan)
        await launcher.discard(plan)
    words = {word for line in said for word in line.split() if ":" in word}
    assert not words & {"v6:eth0"}, "an address of IPv6, by which the rules know no container"
    return words - {"v6:lo"}


def plan_of(root: Path, ports: Ports, *where: str) -> LaunchPlan:
    version = command("/usr/bin/python3", "-I", "-c", CONTAINER, str(ports.signal), *where)
    version.container.image = IMAGE
    return make_plan(version, root, ports=ports, own_network=True, grace_s=1.0)


def first_address() -> str:
    """Return the node's address on the own network of a container with `PORTS`."""
    network = firewall.part_of("10.213.0.0/16", (PORTS.signal - 1024) // 4)
    head, _, last = network.removesuffix("/30").rpartition(".")
    return f"{head}.{int(last) + 1}"


def own_addresses() -> list[str]:
    """Return the ports of a container with `PORTS` at the addresses that it may have: Docker's, or podman's."""
    head, _, gateway = first_address().rpartition(".")
    return [
        f"{host}:{port}"
        for host in ("10.213.252.2", f"{head}.{int(gateway) + 1}")
        for port in (PORTS.signal, PORTS.http)
    ]


def serve(port: int, there: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    server = subprocess.Popen([*there, sys.executable, "-I", "-c", SERVE, str(port)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    return server


def stop(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.wait()
    assert server.stdout is not None
    server.stdout.close()


def tried(there: tuple[str, ...], *where: str) -> list[str]:
    command = [*there, sys.executable, "-I", "-c", TRY, *where]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
