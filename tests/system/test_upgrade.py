"""A rolling upgrade: the released version and this one side by side on one Postgres, each as real processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import footlights
from tests.store.databases import postgres
from tests.system.replicas import ReplicaSet
from tests.system.stack import JSON, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
OPTIONS = ("--heartbeat-interval", "1s")
AGENT = ("--launchers", "fake", "--software-devices", "2")


def take(directory: Path) -> dict[str, str]:
    """Lay the released version's code into a directory; return the environment in which it is what runs."""
    lines = (Path(__file__).parent / "released.txt").read_text().splitlines()
    [commit] = [line for line in lines if line and not line.startswith("#")]
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit, "src", "gen"], capture_output=True)
    assert archive.returncode == 0, f"the released version {commit} cannot be taken: {archive.stderr.decode()}"
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-x", "-C", str(directory)], input=archive.stdout, check=True)
    # This checkout is installed as well, and packages that the release lacks would be found there.
    ours = (str(ROOT / "src"), str(ROOT / "gen"))
    hide = f"import sys\nsys.path[:] = [path for path in sys.path if not path.startswith({ours!r})]\n"
    (directory / "src" / "sitecustomize.py").write_text(hide)
    environment = {"PYTHONPATH": f"{directory / 'src'}:{directory / 'gen'}"}
    program = (
        "import sys, footlights.cli, footlights.control.main, footlights.agent.main\n"  # names of the released version
        "for name, module in sys.modules.items():\n"
        "    if name.partition('.')[0] == 'footlights' and getattr(module, '__file__', None):\n"
        "        print(module.__file__)"
    )
    shown = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    files_of = shown.stdout.split()
    assert str(directory / "src" / "footlights" / "__init__.py") in files_of
    assert [path for path in files_of if not path.startswith(str(directory))] == []
    return environment


class Upgrade(ReplicaSet):
    """Begins with one server of the released version."""

    def __init__(self, directory: Path, database: str, environment: dict[str, str]) -> None:
        super().__init__(directory, database, server_options=OPTIONS)
        self._environment = environment

    async def start_server(self) -> None:
        await self.start_replica("old", environment=self._environment)

    def migration(self) -> str:
        return str(self.rows("SELECT version_num FROM alembic_version")[0][0])

    async def shown(self, name: str, session_id: str, *states: str) -> JSON:
        """Wait until a server shows a session in one of these states."""

        async def there() -> JSON | None:
            session = await self.ask(name, "GET", f"/stream/{session_id}")
            return session if session["state"] in states else None

        return dict(await until(there, what=f"{name} shows {session_id} in {states}", timeout_s=40))

    async def all_ready(self, *names: str) -> None:
        """Wait until each of these servers shows every node as READY."""
        for name in names:

            async def ready(name: str = name) -> bool:
                items = (await self.ask(name, "GET", "/nodes"))["items"]
                return all(node["state"] == "READY" for node in items)

            await until(ready, what=f"{name} shows all nodes as READY", timeout_s=40)

    async def turn_to(self, name: str) -> None:
        """Have what is asked, and agents that are started, use this server alone."""
        assert self._client is not None
        await self._client.aclose()
        self.http, self.grpc = self.replicas[name].http, self.replicas[name].grpc
        self._client = self.client(self.token)

    def seen(self, node: str) -> int:
        """Return when a node was last recorded to have been heard."""
        return int(self.rows("SELECT last_seen_time FROM node WHERE node = %s", node)[0][0])


async def test_the_released_version_and_this_one_work_side_by_side(tmp_path: Path) -> None:
    """Sessions of either are seen and ended through the other, agents of both link to both; then the old one goes."""
    environment = take(tmp_path / "released")
    assert str(ROOT) in str(footlights.__file__)
    with postgres() as server:
        async with Upgrade(tmp_path / "set", server.create(), environment) as both:
            assert isinstance(both, Upgrade)
            limits = {"stop_grace_period": "1s", "queue_timeout": "120s"}
            version = {"version": "1.0.0", "fake": {}, "limits": limits}
            body = {"application": {}, "versions": [version], "releases": {"default": "1.0.0"}}
            await both.put("/applications/fake", body)
            await both.start_agent("node-a", *AGENT, environment=environment)
            kept = (await both.post("/stream", {"application": "fake"}))["session_id"]
            begun = await both.session_in(kept, "READY")
            before = both.migration()
            old = both.replicas["old"].grpc

            new = (await both.start_replica("new")).grpc
            assert both.migration() != before
            both.grpc = new
            await both.start_agent("node-b", *AGENT, environment=environment, wait=False)
            # By its name the second address is its first.
            both.grpc = f"{new},{old}"
            await both.start_agent("node-c", *AGENT, wait=False)

            async def linked() -> bool:
                hubs = dict(both.rows("SELECT node, coalesce(hub, '') FROM node WHERE connected"))
                return hubs == {"node-a": "", "node-b": both.id_of("new"), "node-c": ""}

            await until(linked, what="the agents are linked as their addresses say", timeout_s=40)
            heard = both.seen("node-a")
            await both.all_ready("old", "new")

            names = ["old", "new"]
            sessions = [kept]
            for number in range(5):
                made = await both.ask(names[number % 2], "POST", "/stream", json={"application": "fake"})
                sessions.append(made["session_id"])
            # There are six slots: every node has two sessions, placed by either for either.
            placed = [await both.shown(name, session, "READY") for session in sessions for name in names]
            assert sorted(session["node"] for session in placed) == ["node-a"] * 4 + ["node-b"] * 4 + ["node-c"] * 4
            assert both.doubled() == []
            for number, session_id in enumerate(sessions[1:]):
                await both.ask(names[(number + 1) % 2], "DELETE", f"/stream/{session_id}")
            for number, session_id in enumerate(sessions[1:]):
                ended = await both.shown(names[number % 2], session_id, "TERMINATED")
                assert ended["end_reason"] == "USER_TERMINATED"

            async def heard_again() -> bool:
                return await asyncio.to_thread(both.seen, "node-a") > heard

            # For longer than the old server takes to say again whom it hears: nobody is given up meanwhile.
            await until(heard_again, what="the old server records whom it hears", timeout_s=60)
            await both.all_ready("old", "new")

            assert await both.replicas["old"].process.stop() == 0

            async def led_on() -> bool:
                return both.hub_of("node-c") == "new" and both.hub_of("node-b") == "new"

            await until(led_on, what="the agent that knows both addresses is linked to the new server", timeout_s=40)
            after = await both.ask("new", "POST", "/stream", json={"application": "fake"})
            await both.shown("new", after["session_id"], "READY")
            both.agents["node-a"].kill()
            await both.agents["node-a"].process.wait()
            # Its agent is brought up to date too, and finds what runs.
            await both.turn_to("new")
            await both.start_agent("node-a", *AGENT)
            still = await both.shown("new", kept, "READY")

            assert (still["node"], still["device"]) == (begun["node"], begun["device"])
            assert both.rows("SELECT count(*) FROM launch WHERE session_id = %s", kept) == [(1,)]
            assert both.doubled() == []
            for session_id in (kept, after["session_id"]):
                await both.ask("new", "DELETE", f"/stream/{session_id}")
                await both.shown("new", session_id, "TERMINATED")
