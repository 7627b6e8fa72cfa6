"""``footlights db`` (`admin`): a database migrated, checked and copied, beside its server or without it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import update
from typer.testing import CliRunner, Result

from footlights.cli.app import app
from footlights.store import admin, open_store
from footlights.store.engines.opening import newest
from footlights.store.engines.sqlite import DATABASE_FILE
from footlights.store.schema import LAUNCH
from footlights.store.sessions import session_rows
from tests.store.databases import Postgres
from tests.store.rows import NOW, create, running

Fresh = tuple[Path, str]


def db(command: str, fresh: Fresh, *arguments: str) -> Result:
    """Run ``footlights db COMMAND`` on a database."""
    directory, url = fresh
    options = ["--data-dir", str(directory), *(["--database", url] if url else [])]
    return CliRunner().invoke(app, ["db", command, *options, *arguments])


async def test_upgrade_says_from_which_to_which(fresh: Fresh) -> None:
    """And, the second time, that there is nothing to do."""
    first, second = db("upgrade", fresh), db("upgrade", fresh)

    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    assert first.output == f"Upgraded the database from an empty one to migration {newest()}.\n"
    assert second.output == f"The database is already at migration {newest()}.\n"


async def test_a_running_server_keeps_an_upgrade_out_of_sqlite_alone(fresh: Fresh) -> None:
    """On Postgres replicas go on while the tables are widened; SQLite's server has its file to itself."""
    store = open_store(*fresh)
    try:
        upgraded = db("upgrade", fresh)
    finally:
        await store.close()

    if fresh[1]:
        assert upgraded.exit_code == 0, upgraded.output
    else:
        assert upgraded.exit_code == 1
        assert "Another server has the data directory" in upgraded.output


async def test_check_finds_a_sound_database_sound(fresh: Fresh) -> None:
    """While its server runs, and says which version it is at."""
    store = open_store(*fresh)
    try:
        await running(store)
        checked = db("check", fresh)
    finally:
        await store.close()

    assert checked.exit_code == 0, checked.output
    assert f"is at migration {newest()}." in checked.output
    assert checked.output.endswith("No problems were found.\n")


async def test_check_names_what_breaks_a_promise(fresh: Fresh) -> None:
    """A lease that its launch has left behind would withhold a slot indefinitely."""
    store = open_store(*fresh)
    try:
        _, launch = await running(store)
        end = update(LAUNCH).where(LAUNCH.c.launch_id == launch.launch_id).values(ended_time=NOW)
        await store.write(lambda tx: tx.changed(end))
    finally:
        await store.close()

    checked = db("check", fresh)

    assert checked.exit_code == 1
    assert "live leases without a live launch: " in checked.output
    assert "The database has 1 problem." in checked.output


async def test_check_finds_damage(tmp_path: Path) -> None:
    """Pages that were overwritten: a check that reads only what it needs would pass them by."""
    store = open_store(tmp_path)
    for _ in range(50):
        await store.write(create)
    await store.close()
    path = tmp_path / DATABASE_FILE
    whole = bytearray(path.read_bytes())
    for place in range(20 * 4096, len(whole), 8 * 4096):
        whole[place : place + 200] = b"\xff" * 200
    path.write_bytes(whole)

    checked = db("check", (tmp_path, ""))

    assert checked.exit_code != 0
    assert "damaged" in checked.output or "malformed" in checked.output


@pytest.mark.parametrize("damage", ["no_header", "first_page", "half"])
@pytest.mark.parametrize("command", ["check", "upgrade", "backup"])
async def test_a_file_that_is_no_database_any_more_is_named(tmp_path: Path, damage: str, command: str) -> None:
    """With what to do, by every command: trying again, as with a database that is away, would not help."""
    await open_store(tmp_path).close()
    path = tmp_path / DATABASE_FILE
    whole = path.read_bytes()
    path.write_bytes(
        {
            "no_header": bytes(100) + whole[100:],
            "first_page": whole[:100] + b"\xff" * 3996 + whole[4096:],
            "half": whole[: len(whole) // 2],
        }[damage]
    )

    said = db(command, (tmp_path, ""), *([str(tmp_path / "copy")] if command == "backup" else []))

    assert said.exit_code == 1, said.output
    assert f"{path} is damaged: " in said.output
    assert "restore a backup" in " ".join(said.output.split())
    assert not (tmp_path / "copy").exists()


async def test_a_copy_is_the_whole_database_and_can_be_started_from(tmp_path: Path) -> None:
    """Of SQLite, while its server writes; no other user can read it."""
    store = open_store(tmp_path / "data")
    row = await store.write(create)
    copy = tmp_path / "restored" / DATABASE_FILE
    copy.parent.mkdir()

    copied = db("backup", (tmp_path / "data", ""), str(copy))
    await store.write(create)
    await store.close()

    assert copied.exit_code == 0, copied.output
    assert copy.stat().st_mode & 0o777 == 0o600
    assert admin.check(copy.parent).problems == ()
    restored = open_store(copy.parent)
    assert await restored.read(lambda tx: session_rows.get(tx, row.session_id)) == row
    assert len(await restored.read(lambda tx: session_rows.pending_page(tx, 10).sessions)) == 1
    await restored.close()


async def test_a_copy_of_postgres_is_an_archive_that_can_be_restored(
    a_postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By pg_dump, triggers and functions with it."""
    url, other = a_postgres.create(), a_postgres.create()
    monkeypatch.setenv("PATH", str(a_postgres.bin), prepend=":")
    store = open_store(tmp_path / "a", url)
    row = await store.write(lambda tx: create(tx, labels={"team": "a"}))

    copied = db("backup", (tmp_path, url), str(tmp_path / "copy"))
    await store.close()
    assert copied.exit_code == 0, copied.output
    restore = await asyncio.create_subprocess_exec(
        a_postgres.bin / "pg_restore", f"--dbname={other}", tmp_path / "copy"
    )
    assert await restore.wait() == 0

    restored = open_store(tmp_path / "b", other)
    assert await restored.read(lambda tx: session_rows.get(tx, row.session_id)) == row
    await restored.write(lambda tx: create(tx, labels={"team": "a"}))
    await restored.close()
    with psycopg.connect(other) as connection:
        assert connection.execute("SELECT count(*) FROM session_term").fetchone() == (2,)


async def test_a_restored_database_is_the_copy_with_nobody_waiting(
    fresh: Fresh, a_postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waited then may have been served and have ended it since; what had a launch ends as its agent says."""
    monkeypatch.setenv("PATH", str(a_postgres.bin), prepend=":")
    copy = tmp_path / "copy"
    store = open_store(*fresh)
    waiting = await store.write(create)
    session, _ = await running(store)
    assert db("backup", fresh, str(copy)).exit_code == 0
    later = await store.write(create)
    in_use = await asyncio.to_thread(db, "restore", fresh, str(copy), "--yes")
    await store.close()

    restored = await asyncio.to_thread(db, "restore", fresh, str(copy), "--yes")

    assert in_use.exit_code == 1
    assert "Another server has" in in_use.output or "other connections. Stop every server first" in in_use.output
    assert restored.exit_code == 0, restored.output
    kept = [path for path in fresh[0].glob(f"{DATABASE_FILE}*") if "-wal" not in path.name and "-shm" not in path.name]
    assert len(kept) == (0 if fresh[1] else 2)
    assert fresh[1] or (fresh[0] / DATABASE_FILE).stat().st_mode & 0o777 == 0o600
    assert "1 sessions that waited then were ended" in restored.output
    store = open_store(*fresh)
    ids = [each.session_id for each in (waiting, session, later)]
    rows = await store.read(lambda tx: [session_rows.get(tx, each) for each in ids])
    await store.close()
    assert [None if row is None else (row.state, row.end_reason) for row in rows] == [
        ("TERMINATED", "USER_TERMINATED"),
        (session.state, ""),
        None,
    ]
    assert db("check", fresh).exit_code == 0


@pytest.mark.parametrize("content", [b"", b"hello", bytes(8192)])
async def test_what_is_no_copy_replaces_nothing(tmp_path: Path, content: bytes) -> None:
    """The database is as it was."""
    store = open_store(tmp_path / "data")
    row = await store.write(create)
    await store.close()
    (tmp_path / "copy").write_bytes(content)

    data = (tmp_path / "data", "")
    refused = [await asyncio.to_thread(db, "restore", data, str(tmp_path / name), "--yes") for name in ("copy", "none")]

    assert [result.exit_code for result in refused] == [1, 1]
    assert "cannot be restored" in refused[0].output
    assert "There is no file" in refused[1].output
    store = open_store(tmp_path / "data")
    assert await store.read(lambda tx: session_rows.get(tx, row.session_id)) == row
    await store.close()


def test_without_pg_dump_a_copy_of_postgres_is_one_clear_line(
    a_postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to install, and leaves no empty file behind."""
    monkeypatch.setenv("PATH", str(tmp_path))

    refused = db("backup", (tmp_path, a_postgres.create()), str(tmp_path / "copy"))

    assert refused.exit_code == 1
    assert "pg_dump is not installed. Install Postgres' client programs" in refused.output
    assert not (tmp_path / "copy").exists()


async def test_a_copy_never_overwrites(tmp_path: Path) -> None:
    """The last good copy is not lost to a slip of the hand."""
    open_store(tmp_path).close_now()
    (tmp_path / "copy").write_text("precious")

    refused = db("backup", (tmp_path, ""), str(tmp_path / "copy"))

    assert refused.exit_code == 1
    assert "cannot be created: File exists. Give a new one." in refused.output
    assert (tmp_path / "copy").read_text() == "precious"


@pytest.mark.parametrize("command", ["upgrade", "check", "backup"])
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://ann:hunter2@db/footlights", "'mysql' is not supported"),
        ("postgresql//ann:hunter2@db/footlights", "is not a database URL"),
        ("postgresql://ann:hunter2@127.0.0.1:1/none", "refused"),
    ],
)
def test_a_wrong_database_is_one_clear_line(
    a_postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, url: str, says: str
) -> None:
    """Without a traceback, and without the password."""
    monkeypatch.setenv("PATH", str(a_postgres.bin), prepend=":")

    refused = db(command, (tmp_path, url), *([str(tmp_path / "copy")] if command == "backup" else []))

    assert refused.exit_code != 0
    assert says in refused.output
    assert refused.output.count("\n") == 1
    assert "hunter2" not in refused.output


@pytest.mark.parametrize("command", ["check", "backup"])
def test_where_there_is_no_database_none_is_made(tmp_path: Path, command: str) -> None:
    """A mistyped directory is said, and stays as it was."""
    refused = db(command, (tmp_path / "typo", ""), *([str(tmp_path / "copy")] if command == "backup" else []))

    assert refused.exit_code == 1
    assert "There is no database in" in refused.output
    assert not (tmp_path / "typo").exists()
