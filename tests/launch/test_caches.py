"""What is kept of a version's caches: who fills it, what is taken, and that no session changes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from footlights.v1.application_pb2 import Version

from footlights.errors import InvalidArgument
from footlights.launch.caches import CacheError, CacheStore
from footlights.launch.container.docker import DockerEngine
from footlights.launch.container.launcher import ContainerLauncher
from footlights.launch.container.rules import ContainerRules
from footlights.launch.process.launcher import ProcessLauncher
from footlights.launch.recipe.recipe import validate
from footlights.launch.systemd import unit
from footlights.linux import landlock
from tests.launch.plans import make_plan, script
from tests.launch.standin_engine import StandinEngine, serve
from tests.launch.waiting import ended

MOST = 1 << 20
OWNER = os.geteuid()


def version(text: str = "true", *paths: str) -> Version:
    made = script(text)
    made.application, made.cache_paths[:] = "kit", paths or ("~/.cache/ov", "~/.nv")
    return made


@pytest.fixture
def store(tmp_path: Path) -> CacheStore:
    """A store that a session has filled."""
    home = tmp_path / "warm" / "home"
    (home / ".cache" / "ov" / "deep").mkdir(parents=True, mode=0o700)
    (home / ".cache" / "ov" / "deep" / "shader").write_text("compiled")
    made = CacheStore(tmp_path / "caches")
    made.take(version(), str(tmp_path / "warm"), "/home", owner=OWNER, most_bytes=MOST)
    return made


@pytest.mark.parametrize(
    "paths",
    [
        *(("/var/cache",), ("~",), ("~/",), ("~/a/../b",), ("~/a:b",), ("~/{session_id}",)),
        *(("~/a", "~/a/b"), ("~/a", "~/a"), tuple(f"~/{number}" for number in range(9))),
    ],
)
def test_paths_are_checked(paths: tuple[str, ...]) -> None:
    """They are plain directories below the home, none in another one, and few."""
    with pytest.raises(InvalidArgument, match="cache_paths"):
        validate(version("true", *paths))
    validate(version())


def test_what_is_taken(store: CacheStore, tmp_path: Path) -> None:
    """Directories and plain files, for everyone to read; of another version, or a nameless one, nothing is shown."""
    [shown] = store.shown(version())
    assert shown.relative == ".cache/ov"
    file = Path(shown.source, "deep", "shader")
    assert file.read_text() == "compiled"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o644, 0o755)
    other = version()
    other.version = "2.0.0"
    nameless = version()
    nameless.application = "../kit"
    assert store.shown(other) == store.shown(nameless) == ()
    [kept] = store.kept()
    assert (kept.name, kept.generation, kept.size) == ("kit@1.0.0", 1, 8)


def test_nothing_outside_is_taken(tmp_path: Path) -> None:
    """A session cannot have the operator take what it does not own: no link is followed, no device or pipe is read."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    cache = tmp_path / "root/home/.cache/ov"
    cache.mkdir(parents=True)
    (cache / "link").symlink_to(secret / "key")
    (cache / "folder").symlink_to(secret)
    os.mkfifo(cache / "pipe")
    (cache / "plain").write_text("plain")
    (tmp_path / "root/home/.nv").symlink_to(secret)
    store = CacheStore(tmp_path / "caches")

    with pytest.raises(OSError, match="symbolic links"):
        store.take(version(), str(tmp_path / "root"), "/home", owner=OWNER, most_bytes=MOST)
    (tmp_path / "root/home/.nv").unlink()
    store.take(version(), str(tmp_path / "root"), "/home", owner=OWNER, most_bytes=MOST)

    found = {path.name for path in (tmp_path / "caches").rglob("*")}
    assert "plain" in found
    assert not found & {"link", "key", "pipe", ".nv"}


@pytest.mark.skipif(OWNER != 0, reason="gives a file away")
def test_only_what_is_the_sessions_is_taken(tmp_path: Path) -> None:
    """A version may say that its home is where others keep what only they, and the operator, may read."""
    home = tmp_path / "root/srv/others"
    (home / ".nv").mkdir(parents=True)
    for name, owner in (("key", 0), ("own", 1234)):
        (home / ".nv" / name).write_text(name)
        (home / ".nv" / name).chmod(0o600)
        os.chown(home / ".nv" / name, owner, -1)

    CacheStore(tmp_path / "caches").take(version(), str(tmp_path / "root"), "/srv/others", owner=1234, most_bytes=MOST)

    assert [path.name for path in (tmp_path / "caches").rglob("*") if path.is_file()] == ["own"]


def test_a_filling_that_fails_changes_nothing(store: CacheStore, tmp_path: Path) -> None:
    """Too much, or nothing: what was kept stays, and no draft is left."""
    with pytest.raises(CacheError, match="more than 4 bytes"):
        store.take(version(), str(tmp_path / "warm"), "/home", owner=OWNER, most_bytes=4)
    with pytest.raises(CacheError, match="nothing of its own is in"):
        store.take(version("true", "~/none"), str(tmp_path / "warm"), "/home", owner=OWNER, most_bytes=MOST)
    assert [path.name for path in (tmp_path / "caches" / "kit@1.0.0").iterdir()] == ["1"]


def test_sessions_keep_what_they_were_shown(store: CacheStore, tmp_path: Path) -> None:
    """A new filling is a new generation; the one before stays, and what is removed is gone."""
    before = store.shown(version())
    for generation in (2, 3):
        assert (
            store.take(version(), str(tmp_path / "warm"), "/home", owner=OWNER, most_bytes=MOST).generation
            == generation
        )
        assert Path(before[0].source).exists() is (generation == 2)
    assert store.shown(version())[0].source.endswith("/3/0")
    assert store.remove("kit", "1.0.0")
    assert not store.remove("kit", "1.0.0")
    assert not store.remove("..", "1.0.0")
    assert store.shown(version()) == ()


async def test_a_process_reads_and_does_not_change_it(store: CacheStore, root: Path, tmp_path: Path) -> None:
    """It is warm in its home; what it writes beside is its own, and ends with it."""
    text = "cat ~/.cache/ov/deep/shader; echo; echo own >~/.cache/own; echo bad >~/.cache/ov/deep/shader; echo over"
    launcher = ProcessLauncher(root, protected=tmp_path, caches=store)
    plan = make_plan(version(text), root)
    await launcher.start(plan, b"{}")
    await ended(launcher, plan)
    lines = (await launcher.log(plan)).lines
    assert lines[0] == "compiled"
    assert lines[-1] == "over"
    if landlock.version():
        assert shader(store) == "compiled"

    await launcher.discard(plan)
    assert shader(store)
    await launcher.close()


async def test_a_process_may_have_a_cache_where_others_have_directories(root: Path, tmp_path: Path) -> None:
    """What was made for every launch gives way to what is kept."""
    (tmp_path / "warm/.local/share/app").mkdir(parents=True)
    (tmp_path / "warm/.local/share/app/shader").write_text("compiled")
    made = version("cat ~/.local/share/app/shader", "~/.local")
    store = CacheStore(tmp_path / "caches")
    store.take(made, str(tmp_path), "/warm", owner=OWNER, most_bytes=MOST)
    launcher = ProcessLauncher(root, protected=tmp_path, caches=store)
    plan = make_plan(made, root)

    await launcher.start(plan, b"{}")
    await ended(launcher, plan)

    assert (await launcher.log(plan)).lines == ("compiled",)
    await launcher.discard(plan)
    await launcher.close()


def shader(store: CacheStore) -> str:
    return Path(store.shown(version())[0].source, "deep/shader").read_text()


def test_a_unit_is_shown_it(store: CacheStore, root: Path) -> None:
    """Read-only below its home; the directories between are its own."""
    made = version()
    made.systemd.SetInParent()
    plan = make_plan(made, root)
    view = unit.UnitView(caches=store.shown(made))

    found = {name: value for name, _, value in unit.units_of(plan, plan.argv, view)[0].properties}

    source = store.shown(made)[0].source
    assert (source, f"{unit.HOME}/.cache/ov", False, 0) in found["BindReadOnlyPaths"]
    assert f"{unit.HOME}/.cache" in dict(found["TemporaryFileSystem"])


async def test_a_container_is_shown_it(store: CacheStore, root: Path, tmp_path: Path) -> None:
    """Read-only below its home, unless the version mounts something there itself."""
    engine = StandinEngine()
    engine.images["app:1"] = {"User": "1000"}
    runner = await serve(engine, socket := tmp_path / "engine.sock")
    launcher = ContainerLauncher(root, [DockerEngine(socket)], ContainerRules(shared_volumes=("own:rw",)), caches=store)
    source = store.shown(version())[0].source
    for mounts, expected in ((), f"{source}:/home/user/.cache/ov:ro"), (["own:/home/user/.cache/ov"], "own:/home/user"):
        made = version("exit 0")
        made.container.image = "app:1"
        made.environment["HOME"] = "/home/user"
        made.container.mounts[:] = mounts
        plan = make_plan(made, root)
        await launcher.start(plan, b"{}")
        host = engine.created[-1]["HostConfig"]
        assert host["Binds"][0].startswith(expected)
        assert not any(source in bind for bind in host["Binds"][1:])
        await ended(launcher, plan)
    assert "/home/user/.cache" in engine.created[0]["HostConfig"]["Tmpfs"]
    await launcher.close()
    await runner.cleanup()
    await engine.close()
