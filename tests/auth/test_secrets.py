"""The cluster key and the box for secrets at rest."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.auth.secrets import ENVIRONMENT, ClusterKey, RingKey, read_ring, retire, rotate
from footlights.errors import FailedPrecondition, Internal

KEY = ClusterKey(bytes(range(32)))


def test_the_key_file_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    """The first start makes the file with mode 0600, the next reads the same key, and no draft stays behind."""
    path = tmp_path / "data" / "cluster.key"

    first = ClusterKey.load_or_create(path, {})
    second = ClusterKey.load_or_create(path, {})

    assert first.derive("x") == second.derive("x")
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_several_starts_at_once_agree_on_one_key(tmp_path: Path) -> None:
    """Of eight that start together one writes the key and all read it."""
    path = tmp_path / "cluster.key"

    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: ClusterKey.load_or_create(path, {}).derive("x"), range(8)))

    assert len(set(keys)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602])
def test_an_exposed_key_file_is_refused(tmp_path: Path, mode: int) -> None:
    """A file that group or world may read or write is refused, with the command that mends it."""
    path = tmp_path / "cluster.key"
    ClusterKey.load_or_create(path, {})
    path.chmod(mode)

    with pytest.raises(FailedPrecondition) as caught:
        ClusterKey.load_or_create(path, {})

    assert caught.value.reason == "CLUSTER_KEY_EXPOSED"
    assert f"chmod 600 {path}" in caught.value.message


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """With the variable set no file is read or made."""
    path = tmp_path / "cluster.key"
    environ = {ENVIRONMENT: base64.b64encode(bytes(range(32))).decode()}

    assert ClusterKey.load_or_create(path, environ).derive("x") == KEY.derive("x")
    assert not path.exists()


@pytest.mark.parametrize("text", ["not base64!", base64.b64encode(bytes(16)).decode()])
def test_a_malformed_key_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    """The refusal says where the key is and what a good one is, without repeating it."""
    with pytest.raises(FailedPrecondition) as caught:
        ClusterKey.load_or_create(tmp_path / "k", {ENVIRONMENT: text})

    assert caught.value.reason == "CLUSTER_KEY_INVALID"
    assert ENVIRONMENT in caught.value.message
    assert text not in caught.value.message


def test_each_use_has_its_own_key() -> None:
    """Keys of different labels differ, and the repr shows none."""
    labels = ["tokens", "grants", "secrets", "frontdoor"]

    assert len({KEY.derive(label) for label in labels}) == len(labels)
    assert repr(KEY) == "ClusterKey([redacted])"


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_what_is_sealed_opens_again(plain: bytes, aad: bytes) -> None:
    """open is the inverse of seal; the sealed bytes do not hold the plain ones, and no two are alike."""
    box = KEY.box()
    sealed = box.seal(plain, aad)

    assert box.open(sealed, aad) == plain
    assert sealed != box.seal(plain, aad)
    assert len(plain) < 4 or plain not in sealed


@pytest.mark.parametrize("change", range(4))
def test_what_was_tampered_with_does_not_open(change: int) -> None:
    """Other bytes, another aad, another key or a cut-off box is SECRET_UNREADABLE."""
    sealed, aad, box = KEY.box().seal(b"hush", b"s1"), b"s1", KEY.box()
    if change == 0:
        sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    elif change == 1:
        aad = b"s2"
    elif change == 2:
        box = ClusterKey(bytes(32)).box()
    else:
        sealed = sealed[:5]

    with pytest.raises(Internal) as caught:
        box.open(sealed, aad)

    assert caught.value.reason == "SECRET_UNREADABLE"


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_key_is_replaced_in_three_steps(tmp_path: Path) -> None:
    """The new key is known at once, signs after its time, and the old one verifies until it is retired."""
    path, now = tmp_path / "cluster.key", [NOW]
    key = ClusterKey.load_or_create(path, {}, lambda: now[0])
    box, old = key.box(), key.fingerprint
    sealed = box.seal(b"hush", b"s1")

    rotate(path, now=NOW, after_s=60)
    assert key.refresh()
    assert (key.fingerprint, len(key.ring)) == (old, 2)
    now[0] += timedelta(seconds=60)
    assert key.refresh()
    assert key.fingerprint != old
    assert box.open(sealed, b"s1") == b"hush"
    assert not key.refresh()

    assert retire(path, now=now[0], older_than_s=86400, check=lambda _: None)[1] == ()
    assert [
        each.fingerprint
        for each in retire(path, now=now[0] + timedelta(days=1), older_than_s=86400, check=lambda _: None)[1]
    ] == [old]
    assert key.refresh()
    with pytest.raises(Internal):
        box.open(sealed, b"s1")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_ring_may_come_from_the_environment(tmp_path: Path) -> None:
    """What the file holds may be the variable's value, with line breaks or commas."""
    path = tmp_path / "cluster.key"
    ClusterKey.load_or_create(path, {})
    rotate(path, now=NOW, after_s=0)
    text = path.read_text()

    for value in (text, text.strip().replace("\n", ",")):
        found = ClusterKey.load_or_create(tmp_path / "none", {ENVIRONMENT: value})
        assert found.ring == ClusterKey.load_or_create(path, {}).ring


@pytest.mark.parametrize("rest", [" until=never", " from=yesterday", " from=2026-99-01T00:00:00Z"])
def test_a_malformed_ring_is_refused(tmp_path: Path, rest: str) -> None:
    """What stands after a key is a time; the refusal says in which form, and leaves a running ring as it was."""
    path = tmp_path / "cluster.key"
    key = ClusterKey.load_or_create(path, {})
    ring = key.ring
    path.write_text(path.read_text().strip() + rest)

    with pytest.raises(FailedPrecondition) as caught:
        key.refresh()

    assert "from=YYYY-MM-DDTHH:MM:SSZ" in caught.value.message
    assert key.ring == ring


def test_a_ring_is_bounded(tmp_path: Path) -> None:
    """A ring has at most eight keys, each once."""
    path = tmp_path / "cluster.key"
    ClusterKey.load_or_create(path, {})
    for _ in range(7):
        rotate(path, now=NOW, after_s=0)

    with pytest.raises(FailedPrecondition) as caught:
        rotate(path, now=NOW, after_s=0)
    assert "footlights keys retire" in caught.value.message
    path.write_text(path.read_text().splitlines()[0] + "\n" + path.read_text().splitlines()[0])
    with pytest.raises(FailedPrecondition):
        ClusterKey.load_or_create(path, {})


def test_changes_at_once_lose_no_key(tmp_path: Path) -> None:
    """Those who change a ring wait for each other; a link to the file stays one, and the file keeps its mode."""
    path, link = tmp_path / "cluster.key", tmp_path / "link"
    ClusterKey.load_or_create(path, {})
    link.symlink_to(path)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda file: rotate(file, now=NOW, after_s=0), [path, link] * 3))

    assert len(ClusterKey.load_or_create(path, {}).ring) == 7
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_that_is_needed_stays(tmp_path: Path) -> None:
    """Whoever knows that it is says so before anything is written."""
    path = tmp_path / "cluster.key"
    old = ClusterKey.load_or_create(path, {}).fingerprint
    ring = rotate(path, now=NOW, after_s=0)
    asked: list[str] = []

    def check(keys: Sequence[RingKey]) -> None:
        asked.extend(key.fingerprint for key in keys)
        raise FailedPrecondition("it is needed")

    with pytest.raises(FailedPrecondition, match="it is needed"):
        retire(path, now=NOW, older_than_s=0, check=check)

    assert asked == [old]
    assert read_ring(path) == ring
