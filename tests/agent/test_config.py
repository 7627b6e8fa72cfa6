"""What an operator may set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from footlights.agent.config import AgentConfig
from footlights.errors import InvalidArgument

GOOD: dict[str, Any] = {"data_dir": Path("/tmp/x"), "server": "127.0.0.1:50051", "token": "t", "node": "node-1"}


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("node", "Node_1"),
        ("server", "nowhere"),
        ("server", "h:0"),
        ("server", "127.0.0.1:50051,"),
        ("public_address", ""),
        ("first_port", 80),
        ("last_port", 20001),
        ("slots_per_device", 0),
        ("software_devices", 0),
        ("encoder_sessions", 0),
        ("devices", "cuda"),
        ("launchers", ("docker",)),
        ("launchers", ()),
        ("container_engine", "containerd"),
        ("container_socket", "docker.sock"),
        ("container_network", "host"),
        ("writable_roots", ("/srv/*", "/srv/out")),
        ("shared_volumes", ("kit:ro",)),
        ("allowed_roots", ("srv",)),
        ("allowed_roots", ("/",)),
        ("writable_roots", ("/srv/../etc",)),
        ("labels", {"a b": "c"}),
        ("labels", {"a": "\x1b[31mred"}),
        ("labels", {"a": "\udcff"}),
        ("foreign_memory_bytes", -1),
        ("log_retention_s", 0),
        ("wrong_device_s", 0),
    ],
)
def test_a_wrong_member_is_named(member: str, value: object) -> None:
    """Each wrong member is refused by its own name."""
    with pytest.raises(InvalidArgument) as caught:
        AgentConfig(**{**GOOD, member: value})
    assert caught.value.field == member


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"server": "10.0.0.1:50051"},
        {"server": "127.0.0.1:50051,10.0.0.1:50051"},
        {"server": "10.0.0.1:50051", "insecure": True},
        {"server": "[::1]:50051"},
        {"server": "localhost:1"},
        {"server": "unix:/run/footlights.sock"},
        {"devices": "fake:gpus.json"},
    ],
)
def test_what_is_right_is_taken(changes: dict[str, Any]) -> None:
    """A token goes in the clear only where nobody else can hear it, or where the operator says so."""
    AgentConfig(**{**GOOD, **changes})


def test_several_servers_are_each_known_once() -> None:
    """In their order; blanks around them are none of theirs."""
    config = AgentConfig(**{**GOOD, "server": "[::1]:1, localhost:2,unix:/run/f.sock,[::1]:1"})

    assert config.servers == ("[::1]:1", "localhost:2", "unix:/run/f.sock")


def test_the_token_is_never_shown() -> None:
    """A config can be logged."""
    assert "secret-token" not in repr(AgentConfig(**{**GOOD, "token": "secret-token"}))


def test_the_token_file_is_read_at_every_dial(tmp_path: Path) -> None:
    """A rotated token is taken up, and a missing file is named."""
    path = tmp_path / "token"
    config = AgentConfig(**{**GOOD, "token": "", "token_file": path})
    with pytest.raises(InvalidArgument, match="token_file"):
        config.read_token()
    path.write_text("one\n")
    assert config.read_token() == "one"
    path.write_text("two\n")
    assert config.read_token() == "two"


def test_applications_are_isolated_unless_an_operator_says_otherwise() -> None:
    """Nothing is started as the agent's own user by default; where it is, the node's notes say what that means."""
    assert "process" not in AgentConfig(**GOOD).launchers
    assert "isolates sessions from nothing" in AgentConfig(**{**GOOD, "launchers": ("process",)}).warnings[0]


def test_ports_in_the_ephemeral_range_are_warned_of() -> None:
    """Allowed, and unwise: said."""
    assert AgentConfig(**GOOD).warnings == ()
    assert "ephemeral" in AgentConfig(**{**GOOD, "last_port": 40000}).warnings[0]
