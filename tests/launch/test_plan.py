"""From an assignment to a plan, and through the journal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from footlights.agent.v1.agent_pb2 import Assignment
from footlights.agent.v1.recipe_pb2 import Recipe
from footlights.v1.application_pb2 import FakeBehavior, Version
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from footlights.launch.launcher import DeviceAccess, LaunchError, LaunchPlan, Ports
from footlights.launch.plan import PATH, from_json, render, resolve_command, to_json
from footlights.protocol import counterparts
from tests.launch.plans import access

PORTS = Ports(signal=1, media=2, http=3)
RECIPE: dict[str, Any] = {
    "version": "1.0.0",
    "command": ["/bin/app", "--ports={signal_port}/{media_port}/{http_port}", "--to={public_address}", "{frames}"],
    "environment": {"STAGE": "{usd_stage_uri}", "GPU": "{device_uuid}#{device_index}", "S": "{session_id}"},
    "arguments": [
        {"name": "frames", "type": "INTEGER", "default_value": 5},
        {"name": "password", "type": "STRING", "secret": True, "required": True},
    ],
    "allowed_stage_roots": ["/srv"],
}


def rendered(recipe: dict[str, Any] = RECIPE, kind: str = "GPU", **members: Any) -> LaunchPlan:
    assignment = Assignment(
        launch_id="l-1",
        session_id="s-1",
        device_uuid="GPU-0000",
        version=json_format.ParseDict(recipe, Recipe()),
        usd_stage_uri=members.pop("stage", "/srv/a.usd"),
        secrets=members.pop("secrets", b'{"password": "hunter2"}'),
    )
    assignment.arguments.update(members.pop("arguments", {}))
    return render(
        assignment,
        ports=PORTS,
        public_address="192.0.2.1",
        device=access(kind, 4),
        directory=Path("/run/l-1"),
        cluster_id="c-1",
    )


def test_rendered() -> None:
    """Every placeholder is filled in; the environment is the launch's, the device's and the version's, no more."""
    plan = rendered(arguments={"frames": 7})

    assert plan.argv == ("/bin/app", "--ports=1/2/3", "--to=192.0.2.1", "7")
    assert dict(plan.environment) == {
        "CUDA_VISIBLE_DEVICES": "GPU-0000",
        "FOOTLIGHTS_CLUSTER_ID": "c-1",
        "FOOTLIGHTS_LAUNCH_ID": "l-1",
        "FOOTLIGHTS_SESSION_FILE": "/run/l-1/session.json",
        "FOOTLIGHTS_SESSION_ID": "s-1",
        "GPU": "GPU-0000#4",
        "HOME": "/run/l-1/state/home",
        "TMPDIR": "/run/l-1/state/tmp",
        "XDG_CACHE_HOME": "/run/l-1/state/home/.cache",
        "XDG_CONFIG_HOME": "/run/l-1/state/home/.config",
        "XDG_DATA_HOME": "/run/l-1/state/home/.local/share",
        "XDG_STATE_HOME": "/run/l-1/state/home/.local/state",
        "XDG_RUNTIME_DIR": "/run/l-1/state/run",
        "LANG": "C.UTF-8",
        "NVIDIA_VISIBLE_DEVICES": "GPU-0000",
        "PATH": PATH,
        "S": "s-1",
        "STAGE": "/srv/a.usd",
    }
    assert list(plan.environment) == sorted(plan.environment)
    assert plan.stop_grace_s == 10.0


def test_no_secret_in_a_plan() -> None:
    """What is secret is in no part of the plan, nor in its journal form."""
    plan = rendered()

    assert "hunter2" not in repr(plan)
    assert "hunter2" not in to_json(plan)


def test_software_devices() -> None:
    """A launch on no GPU is shown none, where the node has some beside."""
    environment = dict(rendered(kind="SOFTWARE").environment)
    assert {name: value for name, value in environment.items() if "VISIBLE" in name} == {"CUDA_VISIBLE_DEVICES": ""}


def test_container() -> None:
    """A container has its image's own PATH and HOME, its session file at its place, and mounts by the launch."""
    mounts = ["/srv:/srv:ro", "cache-{device_uuid}:/c"]
    recipe = {**RECIPE, "container": {"image": "app:1", "mounts": mounts}}

    plan = rendered(recipe)

    assert not {"PATH", "HOME", "LANG"} & set(dict(plan.environment))
    assert dict(plan.environment)["FOOTLIGHTS_SESSION_FILE"] == "/run/footlights/session.json"
    assert plan.mounts == ("/srv:/srv:ro", "cache-GPU-0000:/c")


def test_mounts_of_both_forms_are_the_same_to_an_engine() -> None:
    """Structured or as text, templates included; both may be in one version."""
    volumes = [
        {"source": "/srv", "target": "/srv", "read_only": True},
        {"source": "cache-{device_uuid}", "target": "/c"},
    ]
    container = {"image": "app:1", "mounts": ["/etc/a:/a"], "volume_mounts": volumes}

    plan = rendered({**RECIPE, "container": container})

    assert plan.mounts == ("/etc/a:/a", "/srv:/srv:ro", "cache-GPU-0000:/c")


def test_the_versions_own_environment_wins() -> None:
    """A version may say otherwise about everything that is not Footlights' own."""
    recipe = {**RECIPE, "environment": {"HOME": "/home/kit", "NVIDIA_VISIBLE_DEVICES": "{device_index}"}}

    environment = dict(rendered(recipe).environment)

    assert (environment["HOME"], environment["NVIDIA_VISIBLE_DEVICES"]) == ("/home/kit", "4")


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"stage": "/etc/passwd"}, "not below a root"),
        ({"arguments": {"frames": 1.5}}, "not a whole number"),
        ({"arguments": {"frames": -5}}, "would be read as an option"),
        ({"arguments": {"other": 1}}, "no such argument"),
        ({"secrets": b""}, "required"),
        ({"secrets": b"[1]"}, "not a JSON object"),
    ],
)
def test_checked_again(members: dict[str, Any], problem: str) -> None:
    """A node does not believe what it is sent: arguments and stage are checked again."""
    with pytest.raises(LaunchError, match=problem) as caught:
        rendered(**members)

    assert caught.value.reason == "BAD_RECIPE"


def test_a_value_adds_no_part_to_a_mount() -> None:
    """A value with ':' in a mount is refused."""
    recipe = {**RECIPE, "container": {"image": "app:1", "mounts": ["/a-{public_address}:/b"]}}
    assignment = Assignment(version=json_format.ParseDict(recipe, Recipe()), secrets=b'{"password": "a"}')

    with pytest.raises(LaunchError, match="cannot stand in a mount"):
        render(
            assignment,
            ports=PORTS,
            public_address="2001:db8::1",
            device=access("GPU"),
            directory=Path("/run/l-1"),
            cluster_id="c-1",
        )


def test_own_scripts_are_found_beside_the_interpreter(tmp_path: Path) -> None:
    """Our console scripts run from the agent's own environment, whatever is on PATH; others from PATH first."""
    beside = Path(sys.executable).parent
    for name in ("footlights-viewer", "footlights", "python3", "only-on-path"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    path = str(tmp_path)

    assert resolve_command("python3", path) == str(tmp_path / "python3")
    assert resolve_command("python3", "/nowhere") == str(beside / "python3")
    assert resolve_command("only-on-path", path) == str(tmp_path / "only-on-path")
    assert resolve_command("./relative", path) == "./relative"
    assert resolve_command("is-nowhere", path) == "is-nowhere"
    if (beside / "footlights-viewer").exists():
        assert resolve_command("footlights-viewer", path) == str(beside / "footlights-viewer")


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PORT = st.integers(1, 65535)
PLANS = st.builds(
    LaunchPlan,
    launch_id=TEXT,
    session_id=TEXT,
    cluster_id=TEXT,
    device_uuid=TEXT,
    device_index=st.integers(-1, 64),
    device_kind=st.sampled_from(["GPU", "MIG", "SOFTWARE", "FAKE"]),
    ports=st.builds(Ports, signal=PORT, media=PORT, http=PORT),
    argv=st.lists(TEXT).map(tuple),
    environment=st.dictionaries(TEXT, TEXT).map(lambda items: tuple(sorted(items.items()))),
    working_directory=TEXT,
    stop_grace_s=st.floats(0, 3600),
    directory=st.from_regex(r"/[a-z]{1,8}(/[a-z]{1,8})*", fullmatch=True).map(Path),
    version=st.builds(
        Version,
        version=TEXT,
        command=st.lists(TEXT),
        environment=st.dictionaries(TEXT, TEXT),
        allowed_stage_roots=st.lists(TEXT),
        fake=st.none() | st.builds(FakeBehavior, exit_code=st.integers(-64, 255), log_lines=st.lists(TEXT)),
    ),
    mounts=st.lists(TEXT).map(tuple),
    own_network=st.booleans(),
)


@given(PLANS)
def test_round_trip(plan: LaunchPlan) -> None:
    """A plan that went through the journal is the same plan."""
    assert from_json(to_json(plan)) == plan


@given(PLANS, st.data())
def test_a_broken_journal_is_an_error(plan: LaunchPlan, data: st.DataObject) -> None:
    """A plan with a member missing, or cut short, is a ValueError and nothing else."""
    text = to_json(plan)
    value = json.loads(text)
    added_later = {"mounts", "cdi_device", "splice", "own_network", "secret_environment"}
    del value[data.draw(st.sampled_from(sorted(set(value) - added_later)))]

    for broken in (json.dumps(value), text[: data.draw(st.integers(0, len(text) - 1))], "[]", "null"):
        with pytest.raises(ValueError, match="not a plan"):
            from_json(broken)


@pytest.mark.parametrize("by_file", [False, True])
def test_a_presigned_stage_is_in_the_command_only_of_those_who_need_it_there(by_file: bool) -> None:
    """A version whose application reads the session file has it nowhere else: not in the plan, not in the journal."""
    signed = "https://store.example/a.usd?X-Amz-Signature=0123abc"
    version = Version(
        version="1.0.0",
        command=["app", "--stage={usd_stage_uri}"],
        allowed_stage_roots=["https://store.example/"],
        stage_from_session_file=by_file,
    )
    assignment = Assignment(
        launch_id="l",
        session_id="s",
        version=counterparts.recipe(version),
        usd_stage_uri="https://store.example/a.usd?[redacted]",
        secrets=json.dumps({"usd_stage_uri": signed}).encode(),
    )

    plan = render(
        assignment,
        ports=PORTS,
        public_address="127.0.0.1",
        device=DeviceAccess("FAKE"),
        directory=Path("/launches/l"),
        cluster_id="c",
    )

    assert plan.argv[1] == f"--stage={'https://store.example/a.usd?[redacted]' if by_file else signed}"
    assert ("0123abc" in to_json(plan)) is not by_file
