"""``footlights keys``: the ring of cluster keys in its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.auth.secrets import ClusterKey

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


def test_a_key_is_added_used_and_removed(run: Run, tmp_path: Path) -> None:
    """Fingerprints are shown and keys never; a server that reads the file signs with the new key."""
    path = tmp_path / "cluster.key"
    old = ClusterKey.load_or_create(path, {})

    rotated = run("keys", "rotate", "--file", str(path), "--after", "0s")
    listed = run("keys", "list", "--file", str(path))
    early = run("keys", "retire", "--file", str(path))
    blind = run("keys", "retire", "--file", str(path), "--older-than", "0s")
    late = run("keys", "retire", "--file", str(path), "--older-than", "0s", "--unchecked")

    new = ClusterKey.load_or_create(path, {})
    assert listed.stdout.splitlines()[0] == f"{old.fingerprint}  from the beginning"
    assert listed.stdout.splitlines()[1].startswith(f"{new.fingerprint}  from 2")
    assert "Removed 0 of 2 keys." in early.stderr
    assert f"There is no database in {tmp_path}. Give the server's --data-dir, or its --database." in blind.stderr
    assert "Removed 1 of 2 keys." in late.stderr
    shown = "".join(each.output for each in (rotated, listed, early, blind, late))
    assert not any(line.split()[0] in shown for line in path.read_text().splitlines())
    assert len(new.ring) == 1


def test_a_file_without_a_key_is_refused(run: Run, tmp_path: Path) -> None:
    """The message says which file, and no new one is made."""
    shown = run("keys", "rotate", "--file", str(tmp_path / "none"))

    assert shown.exit_code == 1
    assert f"{tmp_path / 'none'} cannot be read" in shown.stderr
    assert list(tmp_path.iterdir()) == []
