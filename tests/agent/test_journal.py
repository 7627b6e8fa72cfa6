"""The journal: what is on disk is what was meant, or is moved aside."""

from __future__ import annotations

import json
import resource
import tempfile
from pathlib import Path

import pytest
from footlights.agent.v1.agent_pb2 import Assignment, LaunchReport
from footlights.agent.v1.recipe_pb2 import Recipe
from hypothesis import given, settings
from hypothesis import strategies as st

from footlights.agent.launches.journal import Journal, JournalEntry, JournalError
from footlights.launch.launcher import LaunchPlan, Ports
from footlights.protocol import counterparts

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
IDS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,30}", fullmatch=True)


@st.composite
def entries(draw: st.DrawFn, launch_id: str = "") -> JournalEntry:
    launch_id = launch_id or draw(IDS)
    assignment = Assignment(
        launch_id=launch_id,
        session_id=draw(TEXT),
        epoch=draw(st.integers(0, 2**62)),
        device_uuid=draw(TEXT),
        slots=draw(st.lists(st.integers(0, 63), max_size=3)),
        secrets=draw(st.binary(max_size=10)),
        version=Recipe(version="1.0.0", command=["run", draw(TEXT)]),
    )
    assignment.arguments.update({"a": draw(TEXT), "n": 5})
    assignment.limits.start_timeout.FromSeconds(draw(st.integers(0, 10**6)))
    plan = LaunchPlan(
        launch_id=launch_id,
        session_id=assignment.session_id,
        cluster_id="c",
        device_uuid=assignment.device_uuid,
        device_index=draw(st.integers(0, 7)),
        device_kind="GPU",
        ports=Ports(20000, 20001, 20002),
        argv=("run", draw(TEXT)),
        environment=(("A", draw(TEXT)),),
        working_directory="",
        stop_grace_s=draw(st.floats(0, 100)),
        directory=Path("/var/lib/footlights/x"),
        version=counterparts.version(assignment.version),
    )
    final = LaunchReport(launch_id=launch_id, state=LaunchReport.EXITED, exit_code=draw(st.integers(-64, 255)))
    return JournalEntry(
        assignment=assignment,
        plan=plan,
        begun=draw(st.booleans()),
        boot_id=draw(TEXT),
        marks=draw(st.dictionaries(st.sampled_from(["STARTING", "PROCESS_UP"]), st.floats(0, 1e9))),
        ever_connected=draw(st.booleans()),
        ending=draw(st.none() | st.just(("EXITED", "STOPPED", "why"))),
        final=final if draw(st.booleans()) else None,
    )


ENTRY = entries(launch_id="launch-1")


@settings(max_examples=30, deadline=None)
@given(st.lists(entries(), max_size=5, unique_by=lambda entry: entry.launch_id))
def test_what_is_written_is_restored_but_for_secrets(written: list[JournalEntry]) -> None:
    """Every entry comes back as it was, and no secret ever reaches the disk."""
    with tempfile.TemporaryDirectory() as name:
        journal = Journal(Path(name) / "journal")
        journal.restore()
        for entry in written:
            journal.write(entry)
        restored = journal.restore()
    assert restored.quarantined == ()
    for entry in written:
        entry.assignment.ClearField("secrets")
    by_id = {entry.launch_id: entry for entry in restored.entries}
    assert by_id == {entry.launch_id: entry for entry in written}


@settings(max_examples=50, deadline=None)
@given(ENTRY, ENTRY, st.data())
def test_a_broken_entry_costs_only_itself(first: JournalEntry, second: JournalEntry, data: st.DataObject) -> None:
    """Cut anywhere, or changed in any byte, an entry is either the same still or moved aside; others are restored."""
    second.assignment.launch_id = "launch-2"
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        journal = Journal(directory)
        journal.write(first)
        journal.write(second)
        path = directory / "launch-1.json"
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content = content[:place]
        else:
            content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        restored = journal.restore()
        found = {entry.launch_id: entry for entry in restored.entries}
        assert "launch-2" in found
        first.assignment.ClearField("secrets")
        if "launch-1" in found:
            assert found["launch-1"] == first
        else:
            assert len(restored.quarantined) == 1
            assert (directory / "quarantine" / "launch-1.json").read_bytes() == bytes(content)
            assert journal.restore().quarantined == ()


@pytest.fixture
def entry() -> JournalEntry:
    assignment = Assignment(launch_id="launch-1", version=Recipe(version="1.0.0"))
    plan = LaunchPlan(
        launch_id="launch-1",
        session_id="s",
        cluster_id="c",
        device_uuid="d",
        device_index=0,
        device_kind="FAKE",
        ports=Ports(1, 2, 3),
        argv=(),
        environment=(),
        working_directory="",
        stop_grace_s=1.0,
        directory=Path("/nowhere"),
        version=counterparts.version(assignment.version),
    )
    return JournalEntry(assignment, plan)


def test_a_write_that_was_cut_off_is_as_if_it_never_was(tmp_path: Path, entry: JournalEntry) -> None:
    """A temporary file that a crash left is removed, and the entry before it holds."""
    journal = Journal(tmp_path)
    journal.write(entry)
    (tmp_path / ".launch-1.json.0a1b").write_bytes(b'{"half')
    restored = journal.restore()
    assert len(restored.entries) == 1
    assert restored.quarantined == ()
    assert not (tmp_path / ".launch-1.json.0a1b").exists()


def test_files_are_for_the_owner_only(tmp_path: Path, entry: JournalEntry) -> None:
    """The journal holds command lines: nobody else reads it."""
    journal = Journal(tmp_path / "journal")
    journal.restore()
    journal.write(entry)
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "journal" / "launch-1.json").stat().st_mode & 0o777 == 0o600


def test_a_refusing_disk_is_said(tmp_path: Path, entry: JournalEntry) -> None:
    """Where nothing can be written, JournalError says so and the entry before stays."""
    journal = Journal(tmp_path / "journal")
    journal.restore()
    journal.write(entry)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(JournalError, match="cannot be written"):
            journal.write(JournalEntry(entry.assignment, entry.plan, begun=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [found.begun for found in journal.restore().entries] == [False]


def test_an_id_is_never_a_path(tmp_path: Path, entry: JournalEntry) -> None:
    """An id from the network cannot write beside the journal."""
    entry.assignment.launch_id = "../evil"
    with pytest.raises(JournalError, match="evil"):
        Journal(tmp_path).write(entry)


def test_removing_twice_is_removing(tmp_path: Path, entry: JournalEntry) -> None:
    """What is gone is gone."""
    journal = Journal(tmp_path)
    journal.write(entry)
    journal.remove("launch-1")
    journal.remove("launch-1")
    assert journal.restore().entries == ()


def test_another_format_is_moved_aside(tmp_path: Path, entry: JournalEntry) -> None:
    """An entry of a later release is not guessed at."""
    journal = Journal(tmp_path)
    journal.write(entry)
    path = tmp_path / "launch-1.json"
    document = json.loads(path.read_text())
    document["entry"]["format"] = 99
    path.write_text(json.dumps(document))
    assert "launch-1" in journal.restore().quarantined[0]
