from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import DEPLOY
from tests.deploy.commands import accept, env_file

COMPOSE = DEPLOY / "compose"
FILES = (COMPOSE / "compose.yaml", COMPOSE / "compose.gpu.yaml")
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Z_]+):-([^}]*)\})")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """The services, with every variable at its default."""
    filled = _VARIABLE.sub(lambda found: "$" if found[1] else found[3], FILES[0].read_text())
    found: dict[str, dict[str, Any]] = yaml.safe_load(filled)["services"]
    return found


def test_commands_are_accepted(services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Our CLI takes every command line of ours, with the environment that it is given.
    """
    for name in ("control-plane", "agent"):
        accept(monkeypatch, ["footlights", *services[name]["command"]], services[name].get("environment", {}))
    (script,) = services["setup"]["command"]
    lines = re.findall(r"^\s*(footlights [^>\n]*)", script, re.MULTILINE)
    environment = {k: v for k, v in services["setup"]["environment"].items() if k.startswith("FOOTLIGHTS_")}
    for line in lines:
        accept(monkeypatch, shlex.split(line), environment)

    assert len(lines) == 2


def test_gpu_variant_changes_what_the_agent_runs_with(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With the GPU file on top, the agent offers GPUs by NVML: no option of the first file stands in its way.
    """
    agent = services["agent"]
    more = yaml.safe_load(FILES[1].read_text())["services"]["agent"]

    plain = accept(monkeypatch, ["footlights", *agent["command"]], agent["environment"])
    with_gpus = accept(monkeypatch, ["footlights", *agent["command"]], {**agent["environment"], **more["environment"]})

    assert (plain.record.devices, with_gpus.record.devices) == ("software", "nvml")


def test_nothing_listens_beyond_loopback(services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As it comes, tokens never leave the machine: the control plane, Prometheus and Grafana listen on 127.0.0.1.
    """
    server = accept(monkeypatch, ["footlights", *services["control-plane"]["command"]], {}).record

    assert server.http_listen.startswith("127.0.0.1:")
    assert server.grpc_listen.startswith("127.0.0.1:")
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert not any("ports" in service for service in services.values())


def test_parts_find_each_other(services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The agent and the set-up dial where the control plane listens, and Prometheus scrapes there.
    """
    server = accept(monkeypatch, ["footlights", *services["control-plane"]["command"]], {}).record
    agent = accept(monkeypatch, ["footlights", *services["agent"]["command"]], {}).record
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())

    assert agent.server == services["setup"]["environment"]["FOOTLIGHTS_SERVER"] == server.grpc_listen
    assert scrape["static_configs"][0]["targets"] == [server.http_listen]
    assert source["datasources"][0]["url"] == "http://127.0.0.1:9090"
    assert str(agent.token_file) == "/run/footlights/token"


def test_mounts_exist(services: dict[str, dict[str, Any]]) -> None:
    """
    Every mounted file is in the repository, every volume is declared, and Grafana's provider reads where they lie.
    """
    declared = yaml.safe_load(FILES[0].read_text())["volumes"]
    targets = []
    for service in services.values():
        for mount in service.get("volumes", ()):
            source, target, *_ = mount.split(":")
            targets.append(target)
            assert (COMPOSE / source).exists() if source.startswith(".") else source in declared, mount
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/footlights.yaml").read_text())["providers"][0]

    assert f"{provider['options']['path']}/footlights.json" in targets
    assert services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in targets


def test_services_are_confined(services: dict[str, dict[str, Any]]) -> None:
    """
    No service is privileged, each drops its capabilities, and every image can be pinned by a variable.
    """
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
    images = re.findall(r"image: (.*)", FILES[0].read_text())
    assert images
    assert all(re.fullmatch(r"[a-z-]+/[a-z-]+:\$\{[A-Z_]+:-[\w.]+\}", image) for image in images)


def test_env_example_is_complete() -> None:
    """
    The example names every variable of the Compose files with its default, and no other.
    """
    used: dict[str, str] = {}
    for path in FILES:
        used |= {name: default for _, name, default in _VARIABLE.findall(path.read_text()) if name}

    assert env_file((COMPOSE / ".env.example").read_text(), commented=True) == used


@pytest.mark.parametrize("files", [FILES[:1], FILES], ids=["plain", "gpu"])
def test_docker_compose_reads_it(files: tuple[Path, ...]) -> None:
    """
    Docker Compose itself takes the files.
    """
    compose = _docker_compose()
    if compose is None:
        pytest.skip("Docker Compose is not on this machine; its `config` needs no engine")
    given = [part for path in files for part in ("-f", str(path))]
    run = subprocess.run(
        [*compose, *given, "--profile", "stun", "config", "--quiet"], capture_output=True, text=True, check=False
    )

    assert (run.returncode, run.stderr) == (0, "")


def _docker_compose() -> list[str] | None:
    if (alone := shutil.which("docker-compose")) is not None:
        return [alone]
    docker = shutil.which("docker")
    if docker is None:
        return None
    run = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    return [docker, "compose"] if run.returncode == 0 else None
