"""Silence among several replicas: each judges its own nodes, and one judges those that no replica has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from footlights import errors
from footlights.control.dispatch.link import AgentLink, LinkState
from footlights.control.dispatch.registry import LinkRegistry
from footlights.control.liveness.heartbeats import SEEN_PERIOD_S, LivenessJudge
from footlights.control.liveness.mass_loss import MassLossGuard
from footlights.control.observability.metrics import Metrics
from footlights.control.replication.membership import Membership
from footlights.control.signals import Signals
from footlights.store import Store, Transaction
from footlights.store.cluster.replica_rows import PeerAddress
from footlights.store.nodes import node_rows
from footlights.store.nodes.links import LinkOpening
from footlights.store.schema import LAUNCH, NODE, NodeRow
from footlights.supervision import Supervisor
from tests.store.rows import begin, create, unlink
from tests.store.rows import link as open_link

HEARTBEAT_S = 5.0
TIMEOUT_S = 3 * HEARTBEAT_S


class Judge:
    """One replica's judgement, and its clocks."""

    def __init__(self, store: Store, name: str = "me", *, signals: Signals | None = None) -> None:
        self.store, self.name = store, name
        self.span, self.start = 1000.0, datetime(2026, 3, 1, tzinfo=UTC)
        metrics = Metrics()
        self.links, self.signals = LinkRegistry(self.monotonic), signals or Signals()
        guard = MassLossGuard(TIMEOUT_S, metrics, self.clock, self.monotonic)
        self.skipped: set[str] = set()
        supervisor = Supervisor(self.skipped.add)
        self.replicas = Membership(store, name, ("hub",), metrics=metrics, clock=self.clock, supervisor=supervisor)
        self.liveness = LivenessJudge(
            store,
            self.signals,
            self.links,
            membership=self.replicas,
            guard=guard,
            heartbeat_s=HEARTBEAT_S,
            clock=self.clock,
            supervisor=supervisor,
            monotonic=self.monotonic,
        )

    def monotonic(self) -> float:
        return self.span

    def clock(self) -> datetime:
        return self.start + timedelta(seconds=self.span)

    async def judge(self, seconds: float = 0.0, *, orphans: bool = True) -> None:
        """Make passes for so long, a second apart, and one at the end."""
        end = self.span + seconds
        while self.span + 1 < end:
            self.span += 1
            assert not await self.liveness.judge_once(orphans=orphans)
        self.span = end
        assert not await self.liveness.judge_once(orphans=orphans)

    async def record(self, node: str, hub: str) -> int:
        """Record a link to some replica; return its epoch."""
        arrival = LinkOpening(node, f"of {node}", b"", (), self.clock(), hub=hub)
        return await self.store.write(lambda tx: open_link(tx, arrival))

    async def link(self, node: str, interval_s: float = HEARTBEAT_S) -> AgentLink:
        """Open a link to this one."""
        epoch = await self.record(node, self.name)
        link = AgentLink(node, f"of {node}", epoch, set(), interval_s=interval_s, monotonic=self.monotonic)
        self.links.add(link)
        return link

    async def node(self, name: str = "node-a") -> NodeRow:
        row = await self.store.read(lambda tx: node_rows.get(tx, name))
        assert row is not None
        return row

    async def reachable(self, name: str = "node-a") -> bool:
        return (await self.node(name)).reachable


@pytest.fixture
async def me(shared: Store) -> Judge:
    """One that has been running for a while."""
    judge = Judge(shared)
    await judge.replicas.join(PeerAddress())
    judge.span += TIMEOUT_S + 1
    return judge


async def test_the_node_of_a_living_replica_is_its_own_to_judge(me: Judge, shared: Store) -> None:
    """However long we hear nothing of it."""
    other = Judge(shared, "other")
    await other.replicas.join(PeerAddress())
    await me.replicas.heartbeat_once()
    await me.record("node-a", "other")
    await me.judge(10 * TIMEOUT_S)

    assert await me.reachable()


async def test_the_node_of_a_gone_replica_is_judged_by_who_does_the_reaping(me: Judge) -> None:
    """By whether anything of it changes in the store, for as long as it would be recorded there, and no sooner."""
    await me.record("node-a", "gone")
    await me.judge(10 * TIMEOUT_S, orphans=False)
    untouched = await me.reachable()
    await me.judge()
    await me.judge(SEEN_PERIOD_S + TIMEOUT_S)
    patient = await me.reachable()
    await me.judge(1)

    assert (untouched, patient, await me.reachable()) == (True, True, False)


async def test_a_node_whose_link_is_known_to_have_ended_gets_the_timeout_alone(me: Judge) -> None:
    """Its replica was removed: no replica can have heard it since."""
    epoch = await me.record("node-a", "gone")
    await me.store.write(lambda tx: unlink(tx, "node-a", epoch, now=me.clock()))
    await me.judge()
    await me.judge(TIMEOUT_S)
    patient = await me.reachable()
    await me.judge(1)

    assert (patient, await me.reachable()) == (True, False)


async def test_a_version_without_replicas_says_whom_it_hears(me: Judge) -> None:
    """Its node had a link to us before: while the store shows that it is heard, it is left alone; then it is silent."""
    before = await me.link("node-a")

    def by_an_old_version(tx: Transaction) -> None:
        tx.execute(NODE.update().where(NODE.c.node == "node-a").values(epoch=NODE.c.epoch + 1, connected=True))

    await me.store.write(by_an_old_version)
    await me.judge()
    ended = before.close_reason
    me.links.remove(before)
    for _ in range(6):
        now = me.clock()
        await me.store.write(lambda tx, now=now: node_rows.seen(tx, [("node-a", 2)], now=now))  # type: ignore[misc]
        await me.judge(SEEN_PERIOD_S)
    heard = await me.reachable()
    await me.judge(SEEN_PERIOD_S + TIMEOUT_S)

    row = await me.node()
    assert isinstance(ended, errors.AlreadyExists)
    assert (heard, row.reachable) == (True, False)
    assert not row.connected, "it can be forgotten, though the replica that had its link has said nothing of its end"


async def test_a_link_takes_its_node_back(me: Judge) -> None:
    """From those that took its replica for gone, or the node for silent: it is heard, so it is well."""
    link = await me.link("node-a")

    def taken_for_gone(tx: Transaction) -> None:
        tx.execute(NODE.update().where(NODE.c.node == "node-a").values(connected=False, hub="another"))
        node_rows.set_silent(tx, "node-a", link.epoch, now=me.clock())

    await me.store.write(taken_for_gone)
    await me.judge(orphans=False)
    row = await me.node()

    assert (row.connected, row.reachable, row.hub, row.hub_epoch) == (True, True, "me", link.epoch)
    assert link.state is not LinkState.CLOSED


async def test_a_link_that_is_not_heard_takes_nothing_back(me: Judge) -> None:
    """It may be dead, and the node's agent at another replica in a moment."""
    link = await me.link("node-a")
    me.span += link.interval_s * 1.5 + 0.1
    await me.store.write(lambda tx: node_rows.set_silent(tx, "node-a", link.epoch, now=me.clock()))
    await me.judge(orphans=False)
    dead = await me.reachable()
    me.links.touch(link)
    await me.judge(orphans=False)

    assert (dead, await me.reachable()) == (False, True)


async def test_a_node_with_a_newer_link_elsewhere_is_given_up(me: Judge) -> None:
    """The agent is told so, and nothing of the newer link is touched."""
    link = await me.link("node-a")
    await me.record("node-a", "other")
    await me.judge(orphans=False)
    row = await me.node()

    assert isinstance(link.close_reason, errors.AlreadyExists)
    assert link.close_reason.reason == "LINK_REPLACED"
    assert (row.hub, row.epoch, row.connected) == ("other", link.epoch + 1, True)


async def test_who_speaks_less_often_is_given_longer(me: Judge) -> None:
    """Three of the intervals that each was told, in one fleet."""
    often, seldom = await me.link("node-a"), await me.link("node-b", 4 * HEARTBEAT_S)
    well = [await me.link(f"node-{number}") for number in range(5)]

    async def pass_s(seconds: int) -> None:
        for _ in range(seconds):
            for link in well:
                me.links.touch(link)
            await me.judge(1, orphans=False)

    await pass_s(int(TIMEOUT_S) + 1)
    first = await me.reachable("node-a"), await me.reachable("node-b")
    await pass_s(3 * int(TIMEOUT_S) - 2)
    patient = await me.reachable("node-b")
    await pass_s(2)

    assert (first, patient, await me.reachable("node-b")) == ((False, True), True, False)
    assert "Nothing was heard for 15 s" in str(often.close_reason)
    assert "Nothing was heard for 60 s" in str(seldom.close_reason)


async def test_what_cannot_be_read_of_a_node_keeps_no_node_from_being_marked(me: Judge) -> None:
    """Facts that do not parse, a launch in no known state: both nodes are silent, and both are marked."""
    broken, silent = await me.link("node-a"), await me.link("node-b")
    well = [await me.link(f"node-{number}") for number in range(5)]

    def damage(tx: Transaction) -> None:
        tx.execute(NODE.update().values(facts=b"\xff\xff"))
        made = begin(tx, create(tx), node="node-a")
        tx.execute(LAUNCH.update().where(LAUNCH.c.launch_id == made.launch_id).values(state="NONSENSE"))

    await me.store.write(damage)
    await silence(me, well)

    assert [await me.reachable(link.node) for link in (broken, silent)] == [False, False]


async def test_a_failure_at_one_node_hides_no_other(shared: Store) -> None:
    """One that is none of ours: it is counted, and the next node is marked in the same pass."""

    class Broken(Signals):
        def node_changed(self, node: str) -> None:
            if node == "node-a":
                raise RuntimeError("a bug")
            super().node_changed(node)

    me = Judge(shared, signals=Broken())
    me.span += TIMEOUT_S + 1
    both = await me.link("node-a"), await me.link("node-b")
    well = [await me.link(f"node-{number}") for number in range(5)]
    await silence(me, well)

    assert [await me.reachable(link.node) for link in both] == [False, False]
    assert me.skipped == {"liveness"}


async def silence(me: Judge, heard: list[AgentLink]) -> None:
    """Pass the time after which a node is silent, while these are heard."""
    for _ in range(int(TIMEOUT_S) + 1):
        for link in heard:
            me.links.touch(link)
        await me.judge(1, orphans=False)


async def test_it_is_recorded_now_and_then_who_was_heard(me: Judge) -> None:
    """For those that could not ask us: not at every heartbeat, and not for who was silent."""
    link, silent = await me.link("node-a"), await me.link("node-b")
    await me.judge()
    begun = [(await me.node(name)).last_seen_time for name in ("node-a", "node-b")]
    for _ in range(2):
        me.span += SEEN_PERIOD_S / 2 - 1
        me.links.touch(link)
        await me.judge()
    early = (await me.node()).last_seen_time
    me.span += 2
    me.links.touch(link)
    await me.judge()
    after = [(await me.node(name)).last_seen_time for name in ("node-a", "node-b")]

    assert early == begun[0]
    assert after == [me.clock(), begun[1]]
    assert silent.state is not LinkState.CLOSED


async def test_a_link_of_a_node_that_was_forgotten_ends(shared: Store) -> None:
    """While its replica was taken for gone; else its agent would run what no replica knows, and never be told so."""
    judge = Judge(shared)
    link = await judge.link("node-a")
    await judge.judge()
    before = link.state is LinkState.CLOSED
    await shared.write(lambda tx: node_rows.forget(tx, "node-a", now=judge.clock()))
    await judge.judge()

    assert (before, link.state is LinkState.CLOSED) == (False, True)
    assert isinstance(link.close_reason, errors.Unavailable)
