"""Opening a database: which servers may, what it is migrated to, and what is reported where it cannot be opened.

Both engines (`sqlite`, `postgres`, `engine`) are opened here.
"""

from __future__ import annotations

import socket
import sqlite3
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from footlights import errors
from footlights.store import Store, open_store
from footlights.store.engines.engine import DatabaseEngine
from footlights.store.engines.opening import current, newest, upgrade
from footlights.store.engines.opening import opened as opened_as_is
from footlights.store.engines.sqlite import DATABASE_FILE
from footlights.store.schema import SESSION, SessionRow, metadata
from footlights.store.sessions import session_rows
from footlights.store.sessions.listing import Filter, Order
from tests.store import lists
from tests.store.databases import Postgres
from tests.store.rows import NOW, create, values

Fresh = tuple[Path, str]


@pytest.fixture
def opened(fresh: Fresh) -> Iterator[Store]:
    """A store on a database that was empty."""
    store = open_store(*fresh)
    yield store
    store.close_now()


def _without_noise(differences: list[Any]) -> list[Any]:
    """Indexes on expressions are asserted by name."""
    return [found for found in differences if not any(name in str(found) for name in ("ix_session_pending",))]


def test_migrations_make_exactly_what_the_models_say(opened: Store) -> None:
    """From an empty database: no table, column, type, index or constraint too many or too few."""
    with opened.engine.writer.connect() as connection:
        if connection.dialect.name == "postgresql":
            # A store's own transactions never rest for so long as this comparison may, on a machine with other work.
            connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        assert _without_noise(compare_metadata(context, metadata)) == []
        known = inspect(connection)
        for table in metadata.sorted_tables:
            names = {index["name"] for index in known.get_indexes(table.name)}
            assert {index.name for index in table.indexes} <= names, table.name
            assert known.get_pk_constraint(table.name)["constrained_columns"] == [
                column.name for column in table.primary_key.columns
            ]


def test_one_live_lease_a_slot_is_the_databases_own_rule(opened: Store) -> None:
    """The invariant that matters most is a partial unique index, whatever code does."""
    with opened.engine.writer.connect() as connection:
        [index] = [each for each in inspect(connection).get_indexes("lease") if each["name"] == "uq_lease_live_slot"]

    assert index["unique"]
    assert index["column_names"] == ["node", "device", "slot"]
    assert "released_time IS NULL" in {str(where).strip("()") for where in index["dialect_options"].values()}


async def test_a_database_of_the_first_version_is_brought_up_to_date_with_all_its_rows(fresh: Fresh) -> None:
    """Its sessions are as they were, and found by their labels and texts; the tables are what the models say."""
    given = SessionRow(**values(labels={"team": "a"}, status_message="by ann"), created_time=NOW, revision=7)
    row = dict(zip(SESSION.c.keys(), given, strict=True))
    fresh[0].mkdir(exist_ok=True)
    with opened_as_is(*fresh) as engine:
        upgrade(engine, "0001")
        with engine.writer.begin() as connection:
            known = {column["name"] for column in inspect(connection).get_columns("session")}
            connection.execute(SESSION.insert(), [{name: row[name] for name in row if name in known}])
        assert current(engine) == "0001"

    store = open_store(*fresh)

    try:
        assert await store.read(lambda tx: session_rows.get(tx, given.session_id)) == given
        for wanted in (Filter(labels=(("team", "a"),)), Filter(search="ann"), Filter(search="fake")):
            page = await store.read(partial(lists.page, wanted=wanted, order=Order(), limit=9))
            assert page.items == (given,), wanted
        test_migrations_make_exactly_what_the_models_say(store)
        assert current(store.engine) == newest()
    finally:
        store.close_now()


async def test_upgrading_again_changes_nothing(opened: Store) -> None:
    """A restart, or a second replica, finds the tables as they are and the rows in them."""
    row = await opened.write(create)

    upgrade(opened.engine)
    upgrade(opened.engine)

    assert await opened.read(lambda tx: session_rows.get(tx, row.session_id)) == row


async def test_what_was_written_is_there_when_it_is_opened_again(fresh: Fresh) -> None:
    """Closing and opening keeps every row, and the lock is free again."""
    first = open_store(*fresh)
    row = await first.write(create)
    await first.close()

    second = open_store(*fresh)

    assert await second.read(lambda tx: session_rows.get(tx, row.session_id)) == row
    await second.close()


def test_several_replicas_may_start_on_one_empty_database(a_postgres: Postgres, tmp_path: Path) -> None:
    """They migrate it once, in turn."""
    url = a_postgres.create()

    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda number: open_store(tmp_path / str(number), url), range(4)))

    for store in stores:
        store.close_now()


_AN_OLD_SESSION = """
    INSERT INTO session (session_id, application, application_version, username, created_by, created_time, revision,
        profile, priority, request_id, arguments, usd_stage_uri, secrets, labels, needs, limits, launcher, intent, wish,
        wish_message, launch_count, failures, queue, state, condition, end_reason, status_message, timeline, ended_time)
    SELECT 's-' || n, 'app', '1', 'ann', 'ann', n, n, '', 0, '', '{}', '', '', '{}', '', '', 'process', 'RUN', '', '',
        0, 0, '{}', 'TERMINATED', 'OK', 'COMPLETED', '', '[]', n
    FROM generate_series(1, :count) AS n
"""


@pytest.fixture
def before(a_postgres: Postgres, tmp_path: Path) -> Iterator[DatabaseEngine]:
    """A Postgres of the release before, which others use."""
    with opened_as_is(tmp_path, a_postgres.create()) as engine:
        upgrade(engine, "0004")
        yield engine


@contextmanager
def _busy(engine: DatabaseEngine) -> Iterator[list[float]]:
    """Read and write as others do; give how long each call took."""
    took: list[float] = []
    over = Event()

    def work(statement: str) -> None:
        while not over.wait(0.05):
            began = time.monotonic()
            with engine.writer.begin() as connection:
                connection.execute(text(statement))
            took.append(time.monotonic() - began)

    statements = (
        "SELECT session_id FROM session WHERE session_id = 's-1'",
        "UPDATE session SET revision = nextval('revision_seq') + 1000000 WHERE session_id = 's-1'",
    )
    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(work, statement) for statement in statements]
        try:
            yield took
        finally:
            over.set()
        for each in working:
            each.result()


def test_others_go_on_while_a_database_is_upgraded(before: DatabaseEngine) -> None:
    """Replicas of the release before read and write; what was built is whole, and a copy that is made delays nobody."""
    with before.writer.begin() as connection:
        connection.execute(text(_AN_OLD_SESSION), {"count": 100_000})

    with _busy(before) as took, ThreadPoolExecutor(2) as pool:
        with before.writer.connect() as dumping:
            dumping.execute(text("SET idle_in_transaction_session_timeout = 0"))
            dumping.execute(text("LOCK TABLE session IN ACCESS SHARE MODE"))
            upgrades = [pool.submit(upgrade, before) for _ in range(2)]
            with pytest.raises(TimeoutError):
                upgrades[0].result(timeout=4)
            dumping.invalidate()
        for each in upgrades:
            each.result(timeout=60)

    assert current(before) == newest()
    assert len(took) > 20
    assert max(took) < 3
    with before.writer.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_index WHERE NOT indisvalid")).scalar_one() == 0


def test_an_upgrade_that_was_interrupted_is_finished(before: DatabaseEngine) -> None:
    """An index whose build was broken off is built again; one that was built stays."""
    upgrade(before, "0007")
    with before.writer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE INDEX CONCURRENTLY ix_session_priority ON session (priority, session_id)"))
        connection.execute(text("CREATE INDEX CONCURRENTLY ix_launch_node ON launch (node, session_id)"))
        connection.execute(
            text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_session_priority'::regclass")
        )

    upgrade(before)

    with before.writer.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_index WHERE NOT indisvalid")).scalar_one() == 0
        names = {index["name"] for index in inspect(connection).get_indexes("session")}
    assert {"ix_session_priority", "ix_session_ended_id"} <= names
    assert "ix_session_ended" not in names


def test_a_newer_database_is_refused(opened: Store) -> None:
    """An old server does not touch tables that lack what it needs, and says what to do."""
    _grow(opened, floor=9999)

    with pytest.raises(errors.FailedPrecondition, match=r"at migration 9999.*Start the newer version") as caught:
        upgrade(opened.engine)

    assert caught.value.reason == "DATABASE_TOO_NEW"


def test_a_newer_database_that_has_what_this_version_needs_is_used(opened: Store) -> None:
    """So an upgrade can be taken back without a backup: nothing is migrated, up or down."""
    _grow(opened, floor=int(newest()))

    upgrade(opened.engine)

    assert current(opened.engine) == "9999"


def _grow(store: Store, *, floor: int) -> None:
    """Bring the tables to a later version's, which says how old a version may be that works with them."""
    with store.engine.writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("UPDATE counter SET value = :floor WHERE name = 'schema_floor'"), {"floor": floor})


def test_a_second_server_is_kept_out_of_the_data_directory(opened: Store, fresh: Fresh) -> None:
    """Two servers on one directory would both place on the same slots."""
    with pytest.raises(errors.FailedPrecondition, match="Another server has the data directory") as caught:
        open_store(*fresh)

    assert caught.value.reason == "DATA_DIR_LOCKED"
    assert str(fresh[0]) in caught.value.message


def test_a_failed_start_gives_the_directory_back(tmp_path: Path) -> None:
    """An operator who corrects the setting can start at once."""
    with pytest.raises(errors.Error):
        open_store(tmp_path, "postgresql://nobody@127.0.0.1:1/none")

    open_store(tmp_path).close_now()


def test_the_data_directory_is_the_servers_own(tmp_path: Path) -> None:
    """It holds keys: no other user may read it."""
    open_store(tmp_path / "data").close_now()

    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["with space", "what?", "a#b", "50%25", "ünïcode"])
def test_any_directory_name_will_do(tmp_path: Path, name: str) -> None:
    """A path is a path, not a part of a URL."""
    open_store(tmp_path / name).close_now()

    assert (tmp_path / name / DATABASE_FILE).exists()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql//ann@db/footlights", "is not a database URL. Write postgresql://USER@HOST/NAME"),
        ("mysql://ann@db/footlights", "'mysql' is not supported. Use postgresql://"),
        ("sqlite:///elsewhere.db", "'sqlite' is not supported"),
        ("postgresql://ann@db:port/footlights", "is not a database URL"),
    ],
)
def test_a_wrong_database_url_is_refused_by_name_value_and_fix(tmp_path: Path, url: str, says: str) -> None:
    """The field is the option's."""
    with pytest.raises(errors.InvalidArgument, match=r"^database: ") as caught:
        open_store(tmp_path, url)

    assert caught.value.field == "database"
    assert says in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql//ann:hunter2@db/footlights",
        "mysql://ann:hunter2@db/footlights",
        "postgresql://ann:hunter2@127.0.0.1:1/none",
        "postgresql//ann@db/footlights?password=hunter2",
        "postgresql://ann@127.0.0.1:1/none?password=hunter2&sslpassword=hunter2",
    ],
)
def test_a_password_in_a_database_url_is_never_said(tmp_path: Path, url: str) -> None:
    """Errors end up in logs and terminals."""
    with pytest.raises(errors.Error) as caught:
        open_store(tmp_path, url)

    assert "hunter2" not in caught.value.message


def test_a_database_that_cannot_be_reached_is_one_clear_line(tmp_path: Path) -> None:
    """It says what it tried and why that failed, without a traceback's worth of text."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]

        with pytest.raises(errors.Unavailable) as caught:
            open_store(tmp_path, f"postgresql://ann@127.0.0.1:{port}/none")

    assert "\n" not in caught.value.message
    assert f"ann@127.0.0.1:{port}/none" in caught.value.message
    assert "refused" in caught.value.message


def test_a_database_that_does_not_exist_is_one_clear_line(a_postgres: Postgres, tmp_path: Path) -> None:
    """The server is there; the name is wrong."""
    with pytest.raises(errors.Unavailable, match='database "nowhere" does not exist') as caught:
        open_store(tmp_path, a_postgres.uri.replace("/postgres?", "/nowhere?"))

    assert "\n" not in caught.value.message


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    """A damaged or foreign file is not overwritten."""
    (tmp_path / DATABASE_FILE).write_bytes(b"this is not a database, but long enough to be read as one" * 40)

    with pytest.raises(errors.FailedPrecondition, match="is damaged: file is not a database"):
        open_store(tmp_path)

    assert (tmp_path / DATABASE_FILE).read_bytes().startswith(b"this is not")


def test_a_data_directory_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    """A file stands where the directory should be."""
    (tmp_path / "file").touch()

    with pytest.raises(errors.FailedPrecondition, match=r"cannot be used: (Not a directory|File exists)") as caught:
        open_store(tmp_path / "file" / "data")

    assert caught.value.reason == "DATA_DIR_UNUSABLE"


def test_sqlite_is_set_up_to_be_durable(tmp_path: Path) -> None:
    """WAL, full synchronisation, foreign keys: on the writer's own connection."""
    store = open_store(tmp_path)
    with store.engine.writer.connect() as connection:
        told = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    store.close_now()

    assert told == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    with sqlite3.connect(tmp_path / DATABASE_FILE) as checked:
        assert checked.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    checked.close()
