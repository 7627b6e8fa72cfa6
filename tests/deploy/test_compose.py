from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from footlights.v1 import node_pb2, token_pb2

from footlights.agent.main import run
from footlights.auth.secrets import ENVIRONMENT, ClusterKey
from footlights.client import Client
from footlights.control.settings import ServerSettings
from tests.control.test_server import serving
from tests.deploy import DEPLOY
from tests.deploy.commands import Accepted, accept, env_file

COMPOSE = DEPLOY / "compose"
PLAIN, GPU, RELAY = (COMPOSE / f"compose{part}.yaml" for part in ("", ".gpu", ".relay"))
FILES = (PLAIN, GPU, RELAY)
REPLICAS = ("control-plane-a", "control-plane-b")
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Z_]+):-([^}]*)\}|\{([A-Z_]+):\?[^}]*\})")
_ADDRESS = "203.0.113.7"
"""What is given where there is no default."""


def _read(path: Path) -> dict[str, Any]:
    """A file with every variable at its default."""
    filled = _VARIABLE.sub(lambda found: found[1] or (_ADDRESS if found[4] else found[3]), path.read_text())
    found: dict[str, Any] = yaml.safe_load(filled)
    return found


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = _read(PLAIN)["services"]
    return found


@pytest.fixture(scope="module")
def relay() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = _read(RELAY)["services"]
    return found


def _replica(service: dict[str, Any], monkeypatch: pytest.MonkeyPatch, more: dict[str, str] | None = None) -> Accepted:
    """What a replica's script would run the control plane with."""
    (script,) = service["command"]
    (line,) = re.findall(r"exec (footlights .*)", script)
    return accept(monkeypatch, shlex.split(line), {**service["environment"], **(more or {})})


def test_commands_are_accepted(services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Our CLI takes every command line of ours, with the environment that it is given.
    """
    for name in REPLICAS:
        _replica(services[name], monkeypatch)
    accept(monkeypatch, ["footlights", *services["agent"]["command"]], services["agent"]["environment"])
    (script,) = services["setup"]["command"]
    lines = re.findall(r"^\s*(footlights [^>\n]*)", script, re.MULTILINE)
    environment = {k: v for k, v in services["setup"]["environment"].items() if k.startswith("FOOTLIGHTS_")}
    for line in lines:
        accept(monkeypatch, shlex.split(line), environment)

    assert len(lines) == 2


def test_replicas_are_two_of_one(services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Both replicas have one database and one key, and ports, a peer address and a data directory each.
    """
    first, second = (_replica(services[name], monkeypatch).record for name in REPLICAS)

    assert first.database == second.database == "postgresql://footlights@127.0.0.1:5432/footlights"
    assert (first.peer_address, second.peer_address) == (first.grpc_listen, second.grpc_listen)
    assert set(first.roles) == set(second.roles) == {"api", "frontdoor", "hub", "loops"}
    names = ("http", "grpc", "admin", "agents")
    listeners = [getattr(each, f"{name}_listen") for each in (first, second) for name in names]
    assert len(set(listeners)) == 8
    for name in REPLICAS:
        assert services[name]["volumes"] == [f"{name}:/data"]
        assert services[name]["secrets"] == ["postgres-password", "cluster-key"]


def test_gpu_variant_changes_what_the_agent_runs_with(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With the GPU file on top, the agent offers GPUs by NVML: no option of the first file stands in its way.
    """
    agent = services["agent"]
    more = _read(GPU)["services"]["agent"]

    plain = accept(monkeypatch, ["footlights", *agent["command"]], agent["environment"])
    with_gpus = accept(monkeypatch, ["footlights", *agent["command"]], {**agent["environment"], **more["environment"]})

    assert (plain.record.devices, with_gpus.record.devices) == ("software", "nvml")


def test_relay_and_replicas_share_a_secret(
    services: dict[str, dict[str, Any]], relay: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With the relay's file on top, both replicas name the relay and read the secret that it reads.
    """
    (script,) = relay["coturn"]["command"]
    for name in REPLICAS:
        record = _replica(services[name], monkeypatch, relay[name]["environment"]).record
        assert record.turn_urls == tuple(f"turn:{_ADDRESS}:3478?transport={kind}" for kind in ("udp", "tcp"))
        assert str(record.turn_secret_file) == "/run/secrets/turn-secret"
        assert set(relay[name]["secrets"]) > set(services[name]["secrets"])
    assert "$(cat /run/secrets/turn-secret)" in script
    assert "--use-auth-secret" in script
    # Nobody's way into what lies behind it.
    assert "--denied-peer-ip=0.0.0.0-255.255.255.255" in script


def test_coturn_knows_its_options(relay: dict[str, dict[str, Any]]) -> None:
    """
    Every option that coturn is given is one that it has.
    """
    turnserver = shutil.which("turnserver")
    if turnserver is None:
        pytest.skip("turnserver is not on this machine (Debian: coturn)")
    run = subprocess.run([turnserver, "--help"], capture_output=True, text=True, check=False)
    given = set(re.findall(r"--[a-z-]+", relay["coturn"]["command"][0]))

    assert len(given) > 10
    assert given <= set(re.findall(r"--[a-z-]+", run.stdout + run.stderr))


def test_nothing_listens_beyond_loopback(services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As it comes, tokens never leave the machine: all but the relay listen on 127.0.0.1.
    """
    for name in REPLICAS:
        server = _replica(services[name], monkeypatch).record
        assert server.http_listen.startswith("127.0.0.1:")
        assert server.grpc_listen.startswith("127.0.0.1:")
        assert server.admin_listen.startswith("127.0.0.1:")
        assert server.agents_listen.startswith("127.0.0.1:")
    binds = re.findall(r"^\s*bind (.*)$", (COMPOSE / "haproxy.cfg").read_text(), re.MULTILINE)
    assert binds == ["127.0.0.1:8080", "127.0.0.1:50051", "127.0.0.1:50052"]
    assert "listen_addresses=127.0.0.1" in services["postgres"]["command"]
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert not any("ports" in service for service in services.values())


def test_parts_find_each_other(services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The agent knows both replicas, the set-up dials one, Prometheus scrapes and HAProxy leads to both.
    """
    replicas = [_replica(services[name], monkeypatch).record for name in REPLICAS]
    agent = accept(monkeypatch, ["footlights", *services["agent"]["command"]], {}).record
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    behind = re.findall(r"^\s*server \w (\S+)", (COMPOSE / "haproxy.cfg").read_text(), re.MULTILINE)

    assert agent.servers == tuple(replica.grpc_listen for replica in replicas)
    assert services["setup"]["environment"]["FOOTLIGHTS_SERVER"] == replicas[0].grpc_listen
    assert scrape["static_configs"][0]["targets"] == [replica.admin_listen for replica in replicas]
    assert behind == [getattr(replica, f"{name}_listen") for name in ("http", "grpc", "agents") for replica in replicas]
    assert {replica.agents_address for replica in replicas} == {"127.0.0.1:50052"}
    assert replicas[0].public_url == "http://127.0.0.1:8080"
    assert source["datasources"][0]["url"] == "http://127.0.0.1:9090"
    assert str(agent.enroll_file) == "/run/footlights/code"


async def test_the_node_enrolls_by_one_start(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    With the commands of the set-up and the agent, an agent links by a certificate, without any token. Another start
    while it is linked makes no code; one after its volume is gone lets it in again.
    """
    record = accept(monkeypatch, ["footlights", *services["agent"]["command"]], services["agent"]["environment"]).record
    (script,) = services["setup"]["command"]
    script = script.replace("$$", "$").replace("/run/footlights", str(tmp_path)).replace("/srv/stages", "/nowhere")
    each: dict[str, Any] = dict.fromkeys(("grpc_listen", "http_listen", "agents_listen"), "127.0.0.1:0")
    settings = ServerSettings(data_dir=tmp_path / "server", auto_accept=True, heartbeat_interval_s=0.5, **each)
    async with serving(settings) as at:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "NODE": services["setup"]["environment"]["NODE"],
            "FOOTLIGHTS_SERVER": at["grpc"],
            "FOOTLIGHTS_TOKEN_FILE": str(tmp_path / "server" / "admin.token"),
        }

        async def set_up() -> str:
            program = await asyncio.create_subprocess_exec("sh", "-euc", script, env=environment)
            assert await program.wait() == 0
            return (tmp_path / "code").read_text()

        async def linked(directory: str) -> None:
            own = {"server": at["grpc"], "data_dir": tmp_path / directory, "enroll_file": tmp_path / "code"}
            stop = asyncio.Event()
            agent = asyncio.create_task(run(dataclasses.replace(record, launchers=("fake",), **own), stop))
            token = (tmp_path / "server" / "admin.token").read_text().strip()
            try:
                async with Client.connect(at["grpc"], token) as client, asyncio.timeout(60):
                    while not (node := await _node(client)) or node.condition != node.CONNECTED:
                        assert not agent.done(), agent
                        await asyncio.sleep(0.1)
                    assert node.identity.HasField("enrolled_time")
                    assert [each.role async for each in client.tokens.iterate()] == [token_pb2.Token.OPERATOR]
                    assert await set_up() == codes[-1]
            finally:
                stop.set()
                await asyncio.gather(agent, return_exceptions=True)

        async def silent() -> None:
            token = (tmp_path / "server" / "admin.token").read_text().strip()
            async with Client.connect(at["grpc"], token) as client, asyncio.timeout(60):
                while (node := await _node(client)) and node.condition == node.CONNECTED:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

        codes = [await set_up()]
        await linked("agent")
        await silent()
        codes.append(await set_up())
        await linked("another")

    assert len(set(codes)) == 2


async def _node(client: Client) -> node_pb2.Node | None:
    return next(iter([node async for node in client.nodes.iterate()]), None)


def test_order_of_start(services: dict[str, dict[str, Any]]) -> None:
    """
    The database first, then the replica that makes the tables and the first token, which the set-up reads of it.
    """
    waits = {name: service.get("depends_on", {}) for name, service in services.items()}

    assert waits["control-plane-a"] == {"postgres": {"condition": "service_healthy"}}
    assert waits["control-plane-b"] == waits["setup"] == {"control-plane-a": {"condition": "service_healthy"}}
    assert waits["agent"] == {"setup": {"condition": "service_completed_successfully"}}
    assert "control-plane-a:/data" in services["setup"]["volumes"]
    assert services["setup"]["environment"]["FOOTLIGHTS_TOKEN_FILE"] == "/data/admin.token"


def test_mounts_exist(services: dict[str, dict[str, Any]]) -> None:
    """
    Every mounted file is in the repository, every volume and secret is declared, and Grafana's provider reads where
    they lie.
    """
    declared = _read(PLAIN)["volumes"]
    targets = []
    for service in services.values():
        for mount in service.get("volumes", ()):
            source, target, *_ = mount.split(":")
            targets.append(target)
            assert (COMPOSE / source).exists() if source.startswith(".") else source in declared, mount
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/footlights.yaml").read_text())["providers"][0]
    wanted = {
        secret
        for path in FILES
        for service in _read(path)["services"].values()
        for secret in service.get("secrets", ())
    }

    assert f"{provider['options']['path']}/footlights.json" in targets
    assert services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in targets
    assert wanted == {secret for path in FILES for secret in _read(path).get("secrets", ())}


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """
    The script makes every secret that Compose mounts, the cluster key as the control plane wants it, and changes none.
    """
    script = tmp_path / "make-secrets"
    shutil.copy(COMPOSE / "make-secrets", script)
    subprocess.run([script], check=True, capture_output=True)
    first = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    again = subprocess.run([script], check=True, capture_output=True, text=True)

    declared = {secret["file"] for path in FILES for secret in _read(path).get("secrets", {}).values()}
    assert {f"secrets/{name}" for name in first} == declared
    assert again.stdout == ""
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == first
    ClusterKey.load_or_create(tmp_path / "none", {ENVIRONMENT: first["cluster-key"]})
    assert not (tmp_path / "none").exists()
    assert min(len(first["postgres-password"]), len(first["turn-secret"])) >= 48
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


def test_no_secret_stands_in_a_file_or_a_variable(services: dict[str, dict[str, Any]]) -> None:
    """
    Secrets reach services as mounted files; what is committed or inspected shows none.
    """
    given = {name for service in services.values() for name in service.get("environment", {})}

    assert not {name for name in given if "PASSWORD" in name and not name.endswith("_FILE")}
    assert ENVIRONMENT not in given
    ignored = (DEPLOY.parent / ".gitignore").read_text().splitlines()
    assert {"/deploy/compose/secrets/", "/deploy/compose/.env"} <= set(ignored)


def test_services_are_confined(services: dict[str, dict[str, Any]], relay: dict[str, dict[str, Any]]) -> None:
    """
    No service is privileged, each drops its capabilities, and every image can be pinned by a variable.
    """
    for name, service in {**services, "coturn": relay["coturn"]}.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
    images = [image for path in FILES for image in re.findall(r"image: (.*)", path.read_text())]
    assert len(images) >= 7
    assert all(re.fullmatch(r"[a-z-]+/[a-z-]+:\$\{[A-Z_]+:-[\w.-]+\}", image) for image in images)


def test_env_example_is_complete() -> None:
    """
    The example names every variable of the Compose files with its default, and no other.
    """
    used: dict[str, str] = {}
    for path in FILES:
        used |= {name: default for _, name, default, _ in _VARIABLE.findall(path.read_text()) if name}
        assert {name for *_, name in _VARIABLE.findall(path.read_text()) if name} <= {"PUBLIC_ADDRESS"}

    assert env_file((COMPOSE / ".env.example").read_text(), commented=True) == used


@pytest.mark.parametrize("files", [FILES[:1], FILES], ids=["plain", "all"])
def test_docker_compose_reads_it(files: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Docker Compose itself takes the files.
    """
    compose = _docker_compose()
    if compose is None:
        pytest.skip("Docker Compose is not on this machine; its `config` needs no engine")
    monkeypatch.setenv("PUBLIC_ADDRESS", _ADDRESS)
    given = [part for path in files for part in ("-f", str(path))]
    run = subprocess.run([*compose, *given, "config", "--quiet"], capture_output=True, text=True, check=False)

    assert (run.returncode, run.stderr) == (0, "")


def _docker_compose() -> list[str] | None:
    if (alone := shutil.which("docker-compose")) is not None:
        return [alone]
    docker = shutil.which("docker")
    if docker is None:
        return None
    run = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    return [docker, "compose"] if run.returncode == 0 else None
