"""What an agent proves its node with, as it keeps it. How it gets it (`enrolling`): tests/system/test_identities."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from footlights.agent.v1.certificate_pb2 import Certificate

from footlights.agent.config import AgentConfig
from footlights.agent.link.enrolling import enroll
from footlights.agent.link.identity import LinkIdentity
from footlights.auth.authority import Authority, new_key
from footlights.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 1, 2, tzinfo=UTC)
AUTHORITY = Authority.create("c", NOW)


def certificate(request: bytes, address: str = ":50052") -> Certificate:
    """Return what a control plane answers."""
    chain = AUTHORITY.node_certificate(request, cluster="c", node="gpu-1", enrollment="e", now=NOW, ttl_s=3 * 86400.0)
    return Certificate(chain=chain, authorities=AUTHORITY.certificates, address=address, server_name="cp")


def kept(path: Path, address: str = ":50052") -> LinkIdentity:
    """Return the identity of an enrolled node."""
    identity = LinkIdentity(path, "gpu-1", lambda: NOW)
    key, request = new_key()
    identity.keep(key, certificate(request, address), "i1")
    return identity


def test_it_is_the_same_after_a_restart(tmp_path: Path) -> None:
    """In one file for its owner alone; its key is in no text of it."""
    path = tmp_path / "identity.json"
    first = kept(path)

    again = LinkIdentity(path, "gpu-1", lambda: NOW)

    assert again.enrolled == first.enrolled is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" not in repr(first.enrolled)
    assert again.credentials() is not None
    assert LinkIdentity(tmp_path / "none", "gpu-1").credentials() is None


async def test_its_code_may_be_removed(tmp_path: Path) -> None:
    """An enrolled node starts without a code; one that is not enrolled says that it needs one."""
    (tmp_path / "code").write_text("")
    config = AgentConfig(tmp_path, "127.0.0.1:1", enroll_file=tmp_path / "code", node="gpu-1")

    await enroll(config, kept(tmp_path / "identity.json"), asyncio.Event())
    with pytest.raises(InvalidArgument, match="no invitation"):
        await enroll(config, LinkIdentity(tmp_path / "none", "gpu-1"), asyncio.Event())


@pytest.mark.parametrize(
    ("address", "server", "target"),
    [
        (":50052", "hub.example.com:50051", "hub.example.com:50052"),
        (":50052", "[2001:db8::1]:50051", "[2001:db8::1]:50052"),
        ("10.0.0.5:7", "hub.example.com:50051", "10.0.0.5:7"),
        ("", "hub.example.com:50051", "hub.example.com:50051"),
        (":50052", "unix:/run/f.sock", "unix:/run/f.sock"),
    ],
)
def test_links_are_opened_where_the_control_plane_says(tmp_path: Path, address: str, server: str, target: str) -> None:
    """A port of the host that the agent knows, or an address; without one, not with the certificate."""
    identity = kept(tmp_path / "identity.json", address)

    assert identity.target(server) == target
    assert (identity.credentials() is None) == (not address)


def test_another_certificate_is_due_at_two_thirds(tmp_path: Path) -> None:
    """It replaces the first with its key, and only where it was asked for."""
    now = [NOW]
    path = tmp_path / "identity.json"
    kept(path)
    identity = LinkIdentity(path, "gpu-1", lambda: now[0])
    assert not identity.is_due
    now[0] += timedelta(days=2)
    assert identity.is_due
    before = identity.enrolled

    identity.take(certificate(new_key()[1]))
    assert identity.enrolled == before

    identity.take(certificate(identity.request().signing_request))
    after = identity.enrolled
    assert before is not None
    assert after is not None
    assert after.key != before.key
    assert after.invitation_id == "i1"
    assert LinkIdentity(path, "gpu-1").enrolled == after


@pytest.mark.parametrize("text", ["", "{}", "[]", json.dumps({"key": "x"})])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    """With what to do; it is not overwritten."""
    path = tmp_path / "identity.json"
    path.write_text(text)

    with pytest.raises(FailedPrecondition, match="footlights nodes invite") as caught:
        LinkIdentity(path, "gpu-1")

    assert caught.value.metadata == {"path": str(path)}


def test_an_identity_of_another_node_is_refused(tmp_path: Path) -> None:
    """As where a machine was cloned and renamed."""
    kept(tmp_path / "identity.json")

    with pytest.raises(FailedPrecondition, match="'gpu-1', and this agent is 'gpu-2'"):
        LinkIdentity(tmp_path / "identity.json", "gpu-2")
