"""Several servers on one Postgres, as real processes: any of them serves, and the loss of one loses nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import secrets
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psycopg
import pytest
import pytest_asyncio
from footlights.v1 import session_pb2

from footlights.client import Client
from footlights.errors import Error
from tests.store.databases import Postgres, postgres
from tests.system.replicas import ReplicaSet
from tests.system.stack import JSON, Process, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
    pytest.mark.shared_processes,
]

NODES = ("node-b", "node-d", "node-a")
"""By their names each has another of three servers as its first."""
EACH_ELSEWHERE = ("fake-1", "fake-2", "fake-3")
"""Applications whose sessions go to one node each. Those of one go where it has run: there they start in seconds."""
OPTIONS = ("--heartbeat-interval", "1s")
AGENT = ("--launchers", "fake", "--launchers", "process", "--software-devices", "4")
ENDED = ("TERMINATED", "FAILED")

WHEP = """
import sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        offer = self.rfile.read(int(self.headers["Content-Length"]))
        answer = b"answer to " + offer
        self.send_response(201)
        self.send_header("Content-Type", "application/sdp")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

for port in sys.argv[1:]:
    threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever).start()
"""


@pytest.fixture(scope="module")
def database_server() -> Iterator[Postgres]:
    """One Postgres for the whole module."""
    with postgres() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(database_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ReplicaSet]:
    """Three servers that do everything, and three agents that know all of them. Each test leaves them so."""
    directory = tmp_path_factory.mktemp("replicas")
    async with ReplicaSet(directory / "set", database_server.create(), server_options=OPTIONS) as running:
        assert isinstance(running, ReplicaSet)
        await asyncio.gather(*(running.start_agent(node, *AGENT) for node in NODES))
        for application in ("fake", *EACH_ELSEWHERE):
            await running.put(f"/applications/{application}", fake_application())
        yield running


def fake_application() -> JSON:
    """Return an application of one version that says hello."""
    limits = {"stop_grace_period": "1s", "queue_timeout": "120s"}
    return {
        "application": {},
        "versions": [{"version": "1.0.0", "fake": {"log_lines": ["hello"]}, "limits": limits}],
        "releases": {"default": "1.0.0"},
    }


async def state_at(fleet: ReplicaSet, name: str, session_id: str, *states: str) -> JSON:
    """Wait until a replica shows a session in one of these states."""

    async def there() -> JSON | None:
        session = await fleet.ask(name, "GET", f"/stream/{session_id}")
        return session if session["state"] in states else None

    return dict(await until(there, what=f"{session_id} is shown as {states} by {name}"))


async def create(fleet: ReplicaSet, name: str, application: str = "fake") -> str:
    return str((await fleet.ask(name, "POST", "/stream", json={"application": application}))["session_id"])


async def end(fleet: ReplicaSet, name: str, *session_ids: str) -> None:
    """End sessions through one replica and see it."""
    for session_id in session_ids:
        await fleet.ask(name, "DELETE", f"/stream/{session_id}")
    for session_id in session_ids:
        await state_at(fleet, name, session_id, "TERMINATED")


async def all_linked(fleet: ReplicaSet, *names: str) -> None:
    """Wait until every node has its link to one of these replicas, and is shown so by each of them."""

    async def linked() -> bool:
        if not all(fleet.hub_of(node) in names for node in NODES):
            return False
        shown = [(await fleet.ask(name, "GET", "/nodes"))["items"] for name in names]
        return all(node["state"] == "READY" for nodes in shown for node in nodes)

    await until(linked, what=f"all nodes are linked to {names}", timeout_s=30)


async def placer(fleet: ReplicaSet) -> str:
    """Return who does the placing."""
    return str(await until(lambda: asyncio.to_thread(fleet.holder, "placing"), what="somebody does the placing"))


def others(fleet: ReplicaSet, *names: str) -> tuple[str, ...]:
    return tuple(name for name in fleet.replicas if name not in names)


async def test_any_replica_serves_any_client_and_agent(fleet: ReplicaSet) -> None:
    """Created through one, watched through the next, its log read through a third, wherever its node is linked."""
    await all_linked(fleet, *fleet.replicas)
    assert {fleet.hub_of(node) for node in NODES} == set(fleet.replicas)
    names = list(fleet.replicas)
    sessions = {}
    for number, name in enumerate(names):
        watched = fleet.replicas[names[(number + 1) % 3]].client
        async with watched.stream("GET", "/stream:watch", timeout=30) as watch:
            session_id = await create(fleet, name, EACH_ELSEWHERE[number])
            async for line in watch.aiter_lines():
                shown = json.loads(line)["result"]
                if shown["session_id"] == session_id and shown["state"] == "READY":
                    sessions[session_id] = shown["node"]
                    break
    for session_id, node in sessions.items():
        for name in names:
            log = await fleet.ask(name, "GET", f"/stream/{session_id}/log")
            assert log["lines"] == ["hello"], f"{name} reads it from {node}, which is linked to {fleet.hub_of(node)}"
    assert set(sessions.values()) == set(NODES)
    for session_id, name in zip(sessions, names, strict=True):
        await end(fleet, names[names.index(name) - 1], session_id)


async def test_what_an_operator_does_is_shown_everywhere(fleet: ReplicaSet) -> None:
    """A cordon, and a drain that ends what runs, through a replica that the node is not linked to."""
    node = NODES[0]
    elsewhere, third = others(fleet, fleet.hub_of(node))
    await fleet.ask(elsewhere, "POST", f"/nodes/{node}:cordon", json={})
    states = [(await fleet.ask(name, "GET", f"/nodes/{node}"))["state"] for name in fleet.replicas]
    assert states == ["CORDONED"] * 3
    await fleet.ask(third, "POST", f"/nodes/{node}:uncordon", json={})

    await asyncio.gather(*(fleet.ask(third, "POST", f"/nodes/{other}:cordon", json={}) for other in NODES[1:]))
    session_id = await create(fleet, elsewhere)
    assert (await state_at(fleet, third, session_id, "READY"))["node"] == node
    await fleet.ask(elsewhere, "POST", f"/nodes/{node}:drain", json={"deadline": "0s"})
    ended = await state_at(fleet, third, session_id, *ENDED)
    assert ended["end_reason"] == "DRAINED"
    for each in NODES:
        await fleet.ask(third, "POST", f"/nodes/{each}:uncordon", json={})


async def test_a_brake_is_shown_everywhere(fleet: ReplicaSet) -> None:
    """Whoever stood still says so through all replicas, and calls none of its nodes silent for it."""
    stopped = fleet.hub_of(NODES[0])
    living = others(fleet, stopped)
    fleet.replicas[stopped].process.kill(signal.SIGSTOP)
    try:
        # The fault itself: it is over half of three heartbeats, and not yet so long that it would be taken for gone.
        await asyncio.sleep(2.5)
    finally:
        fleet.replicas[stopped].process.kill(signal.SIGCONT)
    shown: list[JSON] = []

    async def told() -> bool:
        shown.append(await fleet.ask(living[0], "GET", "/nodes"))
        return bool(shown[-1].get("brake"))

    await until(told, what="another one shows the brake")

    async def over() -> bool:
        shown.append(await fleet.ask(living[1], "GET", "/nodes"))
        return not shown[-1].get("brake")

    await until(over, what="the brake to let go")
    assert {answer["brake"]["reason"] for answer in shown if answer.get("brake")} == {"STALLED"}
    assert {node["state"] for answer in shown for node in answer["items"]} == {"READY"}


async def test_a_front_door_leads_to_nodes_that_others_have(fleet: ReplicaSet, tmp_path: Path) -> None:
    """A grant of one replica opens the front door of every other one."""
    source = tmp_path / "whep.py"
    source.write_text(WHEP)
    version = {
        "version": "1.0.0",
        "command": [sys.executable, "-S", str(source), "{http_port}", "{signal_port}"],
        "signaling": {"whep_path": "/whep"},
        "limits": {"stop_grace_period": "1s"},
    }
    first = next(iter(fleet.replicas))
    body = {"application": {}, "versions": [version], "releases": {"default": "1.0.0"}}
    await fleet.ask(first, "PUT", "/applications/viewed", json=body)
    session_id = await create(fleet, first, "viewed")
    await state_at(fleet, first, session_id, "READY")
    grant = (await fleet.ask(first, "POST", f"/stream/{session_id}:connect", json={}))["token"]

    for replica in fleet.replicas.values():
        async with httpx2.AsyncClient(base_url=replica.http, timeout=20) as viewer:
            answer = await viewer.post(
                f"/stream/{session_id}/whep",
                content=replica.name,
                headers={"Authorization": f"Bearer {grant}", "Content-Type": "application/sdp"},
            )
        assert (answer.status_code, answer.text) == (201, f"answer to {replica.name}")
    await end(fleet, first, session_id)


async def test_a_replica_with_another_key_is_refused(fleet: ReplicaSet, tmp_path: Path) -> None:
    """With one line that says what to do."""
    argv = [sys.executable, "-m", "footlights", "server", "--data-dir", str(tmp_path / "data")]
    argv += ["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--database", fleet.database]
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    stranger = await Process.start("stranger", argv, tmp_path / "log", {"FOOTLIGHTS_CLUSTER_KEY": key})

    assert await asyncio.wait_for(stranger.process.wait(), 30) != 0
    assert "The database is sealed with the cluster key" in stranger.tail(1)
    assert "which this server lacks" in stranger.tail(1)
    assert "FOOTLIGHTS_CLUSTER_KEY" in stranger.tail(1)


@dataclass
class Load:
    """Clients that create and terminate, each going to another replica where one fails, with the same request."""

    fleet: ReplicaSet
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    created: dict[str, str] = field(default_factory=dict)
    """By request, what was acknowledged."""
    terminated: set[str] = field(default_factory=set)
    retried: int = 0
    doubled: list[object] = field(default_factory=list)

    async def client(self, number: int) -> None:
        """Create and terminate; every other client lets its sessions become ready first."""
        names = [*self.fleet.replicas]
        addresses = itertools.cycle(names[number % 3 :] + names[: number % 3])
        name = next(addresses)

        async def insist(method: str, path: str, **options: object) -> JSON:
            nonlocal name
            for _ in range(60):
                with contextlib.suppress(httpx2.TransportError, AssertionError):
                    return await self.fleet.ask(name, method, path, timeout=5, **options)
                self.retried += 1
                name = next(addresses)
                await asyncio.sleep(0.05)
            raise AssertionError(f"nobody answers {method} {path}")

        while not self.stop.is_set():
            request_id = str(uuid.uuid4())
            made = await insist("POST", "/stream", json={"application": "fake", "request_id": request_id})
            session_id = self.created[request_id] = made["session_id"]

            async def ready(session_id: str = session_id) -> bool:
                return bool((await insist("GET", f"/stream/{session_id}"))["state"] == "READY")

            if number % 2:
                await until(ready, what=f"{session_id} is READY", timeout_s=40)
            await insist("DELETE", f"/stream/{session_id}")
            self.terminated.add(session_id)

    async def sample(self) -> None:
        """Look for doubled slots all the while."""
        while not self.stop.is_set():
            self.doubled.extend(await asyncio.to_thread(self.fleet.doubled))
            await asyncio.sleep(0.2)

    async def until_more(self, count: int) -> None:
        """Wait until so many more were created and terminated."""
        goal = len(self.terminated) + count

        async def there() -> bool:
            return len(self.terminated) >= goal

        await until(there, what=f"{count} more sessions", timeout_s=40)

    async def check(self, name: str) -> None:
        """Hold what was acknowledged against what a replica shows and the database has."""
        for session_id in self.terminated:
            await state_at(self.fleet, name, session_id, "TERMINATED")
        assert self.doubled == []
        known = dict(self.fleet.rows("SELECT request_id, session_id FROM request_key"))
        assert {request: known.get(request) for request in self.created} == self.created
        made = self.fleet.rows("SELECT request_id, count(*) FROM session WHERE request_id <> '' GROUP BY request_id")
        assert [row for row in made if row[1] != 1] == []
        assert len(set(self.created.values())) == len(self.created)


@contextlib.asynccontextmanager
async def loaded(fleet: ReplicaSet) -> AsyncIterator[Load]:
    """Put the replicas under load; at the end every client has finished what it was about."""
    load = Load(fleet)
    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(load.client(number))
        group.create_task(load.sample())
        try:
            yield load
        finally:
            load.stop.set()


async def test_killing_who_places_loses_nothing(fleet: ReplicaSet) -> None:
    """No acknowledged create is lost or made twice, every terminate ends, no slot is doubled, watches miss nothing."""
    killed = await placer(fleet)
    living = others(fleet, killed)
    last: dict[str, session_pb2.Session] = {}
    addresses = ",".join(fleet.replicas[name].grpc for name in (killed, *living))

    async def watch() -> None:
        async with Client.connect(f"ipv4:{addresses}", fleet.token) as client:
            async for frame in client.sessions.follow():
                session = frame.session
                if frame.change == session_pb2.FollowSessionsResponse.SET:
                    assert session.revision >= last.setdefault(session.session_id, session).revision
                    last[session.session_id] = session

    watching = asyncio.create_task(watch())
    try:
        async with loaded(fleet) as load:
            await load.until_more(10)
            await fleet.kill(killed)
            await load.until_more(10)
            successor = await until(
                lambda: _holder_of(fleet, "placing", living), what="another one does the placing", timeout_s=15
            )
            await load.until_more(10)
            await all_linked(fleet, *living)
        await load.check(str(successor))

        async def told() -> bool:
            assert not watching.done() or watching.result()
            return all(
                session_id in last and last[session_id].state == session_pb2.Session.TERMINATED
                for session_id in load.terminated
            )

        await until(told, what="the watch tells of every end")
    finally:
        watching.cancel()

    assert load.retried
    await fleet.start_replica(killed)


async def _holder_of(fleet: ReplicaSet, work: str, names: tuple[str, ...]) -> str:
    """Return which of these replicas does some work; empty where none does."""
    holder = await asyncio.to_thread(fleet.holder, work)
    return holder if holder in names else ""


async def test_a_replica_that_was_stopped_takes_nothing_from_the_living(fleet: ReplicaSet) -> None:
    """Taken for gone, it comes back: it writes nothing under its old token, and its nodes have a link again."""
    stopped = await placer(fleet)
    living = others(fleet, stopped)
    kept = await create(fleet, living[0])
    ready = await state_at(fleet, living[0], kept, "READY")
    [(token,)] = fleet.rows("SELECT token FROM work WHERE work = 'placing'")

    async def back() -> bool:
        found = fleet.rows("SELECT beat FROM replica WHERE replica = %s", fleet.id_of(stopped))
        return bool(found) and found[0][0] > 3

    async with loaded(fleet) as load:
        await load.until_more(5)
        fleet.replicas[stopped].process.kill(signal.SIGSTOP)
        try:
            await until(lambda: _gone(fleet, stopped), what=f"{stopped} is taken for gone", timeout_s=30)
            successor = await until(
                lambda: _holder_of(fleet, "placing", living), what="another one does the placing", timeout_s=20
            )
            during = await create(fleet, living[1])
            await load.until_more(5)
        finally:
            fleet.replicas[stopped].process.kill(signal.SIGCONT)
        await until(back, what=f"{stopped} lives again")
    await load.check(living[0])
    await all_linked(fleet, *fleet.replicas)
    after = await create(fleet, stopped)
    for session_id in (during, after):
        await state_at(fleet, stopped, session_id, "READY")
    again = await state_at(fleet, stopped, kept, "READY")

    assert fleet.rows("SELECT token FROM work WHERE work = 'placing'") == [(token + 1,)]
    assert fleet.holder("placing") == successor
    assert (again["node"], again["device"]) == (ready["node"], ready["device"])
    assert fleet.rows("SELECT count(*) FROM launch WHERE session_id = %s", kept) == [(1,)]
    assert fleet.doubled() == []
    await end(fleet, stopped, kept, during, after)


async def _gone(fleet: ReplicaSet, name: str) -> bool:
    found = await asyncio.to_thread(fleet.rows, "SELECT 1 FROM replica WHERE replica = %s", fleet.id_of(name))
    return not found


async def test_lost_wake_ups_cost_seconds_only(fleet: ReplicaSet) -> None:
    """With every listener's connection ended again and again, sessions are placed, told of and ended all the same."""
    stop = asyncio.Event()
    ended = 0

    async def cut() -> None:
        nonlocal ended
        with psycopg.connect(fleet.database, autocommit=True) as connection:
            while not stop.is_set():
                ended += len(
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE application_name = 'footlights-wakeups' AND datname = current_database()"
                    ).fetchall()
                )
                await asyncio.sleep(0.02)

    cutting = asyncio.create_task(cut())
    try:
        names = list(fleet.replicas)
        sessions = [await create(fleet, name) for name in names]
        for session_id, name in zip(sessions, names[1:] + names[:1], strict=True):
            await state_at(fleet, name, session_id, "READY")
        await end(fleet, names[0], *sessions)
    finally:
        stop.set()
        await cutting

    assert ended >= 2 * len(fleet.replicas)


async def test_a_replica_that_is_asked_to_stop_hands_over_at_once(fleet: ReplicaSet) -> None:
    """Nobody has to find it gone: when it has ended, its work and its nodes are free."""
    stopping = await placer(fleet)
    living = others(fleet, stopping)
    replica = fleet.id_of(stopping)
    kept = await create(fleet, living[0])
    await state_at(fleet, living[0], kept, "READY")

    def found_gone() -> int:
        logs = [fleet.replicas[name].process.log.read_text() for name in living]
        return sum(log.count("A replica is gone") for log in logs)

    before = found_gone()
    assert await fleet.replicas[stopping].process.stop() == 0

    assert fleet.rows("SELECT 1 FROM replica WHERE replica = %s", replica) == []
    assert fleet.rows("SELECT work FROM work WHERE holder = %s", replica) == []
    assert fleet.rows("SELECT node FROM node WHERE hub = %s AND connected", replica) == []
    await all_linked(fleet, *living)
    session_id = await create(fleet, living[1])
    await state_at(fleet, living[0], session_id, "READY")
    assert found_gone() == before
    await end(fleet, living[0], kept, session_id)
    await fleet.start_replica(stopping)


async def test_agents_of_a_replica_that_stops_are_sent_to_another(database_server: Postgres, tmp_path: Path) -> None:
    """Also one that knows no other address: it says goodbye, and where to go; the session goes on."""
    options = (*OPTIONS, "--redirect-agents")
    directory = tmp_path / "set"
    async with ReplicaSet(directory, database_server.create(), count=2, server_options=options) as pair:
        assert isinstance(pair, ReplicaSet)
        await pair.put(
            "/applications/fake",
            {"application": {}, "versions": [{"version": "1.0.0", "fake": {}}], "releases": {"default": "1.0.0"}},
        )
        pair.grpc = pair.replicas["server-1"].grpc
        agent = await pair.start_agent("node-a", *AGENT)
        session_id = (await pair.post("/stream", {"application": "fake"}))["session_id"]
        await pair.session_in(session_id, "READY")
        hub = pair.hub_of("node-a")
        assert await pair.replicas["server-1"].process.stop() == 0

        async def moved() -> bool:
            return pair.hub_of("node-a") == "server-0"

        await until(moved, what="the agent is linked to the other replica", timeout_s=15)

        assert hub == "server-1"
        assert "reason=SERVER_STOPPING" in agent.log.read_text()
        assert (await pair.session_in(session_id, "READY"))["launch_count"] == 1


async def test_roles_work_apart(database_server: Postgres, tmp_path: Path) -> None:
    """Links, calls and loops as three processes are one control plane; each has its probes and metrics."""
    roles = ("api,frontdoor", "hub", "loops")
    apart = ReplicaSet(tmp_path / "apart", database_server.create(), roles=roles, server_options=OPTIONS)
    async with apart:
        await apart.start_agent("node-a", *AGENT)
        await apart.register_fake(log_lines=["hello"])
        session_id = await create(apart, "server-0")
        await state_at(apart, "server-0", session_id, "READY")
        log = await apart.get(f"/stream/{session_id}/log")
        hub, placing = apart.hub_of("node-a"), apart.holder("placing")
        probes = {
            (name, path): (await replica.client.get(path)).status_code
            for name, replica in apart.replicas.items()
            for path in ("/livez", "/readyz", "/metrics")
        }
        elsewhere = [
            (await apart.replicas[name].client.request(method, path))
            for name in ("server-1", "server-2")
            for method, path in (("GET", "/nodes"), ("POST", f"/stream/{session_id}/whep"), ("GET", "/console/"))
        ]
        async with Client.connect(apart.replicas["server-2"].grpc, apart.token) as client:
            with pytest.raises(Error) as refused:
                await client.sessions.get(session_id)
        await end(apart, "server-0", session_id)

    assert log["lines"] == ["hello"]
    assert (hub, placing) == ("server-1", "server-2")
    assert set(probes.values()) == {200}
    assert {answer.status_code for answer in elsewhere} == {501}
    infos = [answer.json()["details"][0] for answer in elsewhere]
    assert [(info["reason"], info["metadata"]["role"]) for info in infos] == [
        ("ROLE_NOT_SERVED", role) for role in ("api", "frontdoor", "api") * 2
    ]
    assert (refused.value.reason, refused.value.metadata) == ("ROLE_NOT_SERVED", {"role": "api"})


async def test_roles_apart_need_a_database_that_can_be_shared(tmp_path: Path) -> None:
    """With SQLite a part of the roles is refused, with one line that says what to do."""
    argv = [sys.executable, "-m", "footlights", "server", "--data-dir", str(tmp_path / "data"), "--roles", "hub"]
    refused = await Process.start("refused", argv, tmp_path / "log")

    assert await asyncio.wait_for(refused.process.wait(), 60) != 0
    [line] = refused.log.read_text().splitlines()
    assert line.startswith(
        "error: --roles: hub leaves the rest to other processes, but only one process can use SQLite."
    )
    assert "--database postgresql://" in line
