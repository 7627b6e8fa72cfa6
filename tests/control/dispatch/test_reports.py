"""Recording reports and `observations`: those of all links that share a commit, each answered for itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path

from footlights.v1 import application_pb2
from google.protobuf.duration_pb2 import Duration

from footlights.control.dispatch import reports
from footlights.control.dispatch.link import AgentLink
from footlights.control.dispatch.reports import MOST_REPORTS, Report, ReportRecorder
from footlights.control.observability.metrics import Metrics
from footlights.control.signals import Signals
from footlights.store import Transaction, open_store
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.store.schema import LaunchRow
from footlights.supervision import Supervisor
from tests.store.rows import NOW, S, begin, create, join, read


def _limited(seconds: int) -> bytes:
    limits = application_pb2.Limits(max_duration=Duration(seconds=seconds))
    return limits.SerializeToString()


def _report(launch: LaunchRow, state: Report.State.ValueType, ready_for_s: int = 0) -> Report:
    return Report(
        launch_id=launch.launch_id,
        epoch=1,
        state=state,
        viewers=0,
        ready_for=Duration(seconds=ready_for_s),
    )


async def test_each_link_is_answered_for_what_its_own_agent_said(tmp_path: Path) -> None:
    """One that is void, one whose session has had its time, and one that tells nothing new."""
    store = open_store(tmp_path)

    def prepare(tx: Transaction) -> dict[str, LaunchRow]:
        made = {}
        for name in ("node-a", "node-b", "node-c"):
            join(tx, name)
            made[name] = begin(tx, create(tx, limits=_limited(60)), node=name)
        join(tx, "node-c")  # another link, of a new epoch
        return made

    def heard(launch: LaunchRow, *states: tuple[Report.State.ValueType, int]) -> reports._LinkReports:
        return reports._LinkReports(launch.node, 1, [_report(launch, *state) for state in states], NOW + 70 * S)

    try:
        made = await store.write(prepare)
        items = [
            heard(made["node-a"], (Report.STARTING, 0), (Report.READY, 61)),
            heard(made["node-c"], (Report.READY, 0)),
            heard(made["node-b"], (Report.READY, 5)),
        ]
        spent, void, running = await store.write(lambda tx: reports._record(tx, items))
        [again] = await store.write(lambda tx: reports._record(tx, items[2:]))
        rows = {name: await store.read(partial(read, session_id=made[name].session_id)) for name in made}
    finally:
        await store.close()

    assert [launch and launch.state for launch in spent.launches] == ["STARTING", "READY"]
    assert (spent.changed, spent.over) == (True, True)
    assert (void.launches, void.changed, void.over) == ((), False, False)
    assert (running.changed, running.over) == (True, False)
    assert (again.changed, again.over) == (False, False)
    assert [rows[name].state for name in sorted(rows)] == ["TERMINATING", "READY", "STARTING"]
    assert rows["node-a"].wish == "MAX_DURATION"


async def test_more_reports_than_a_statement_takes_are_all_recorded(tmp_path: Path) -> None:
    """Thousands of launches may be told of in one instant, when a server was away: in their order, none forgotten."""
    store = open_store(tmp_path)

    def prepare(tx: Transaction) -> LaunchRow:
        join(tx, "node-a")
        return begin(tx, create(tx))

    try:
        launch = await store.write(prepare)
        other = Report(launch_id="unknown", epoch=1, state=Report.READY)
        many = [other] * (MOST_REPORTS - 1)
        states = (Report.STARTING, Report.READY, Report.EXITED)
        items = [
            reports._LinkReports("node-a", 1, [*many, _report(launch, state)], NOW + number * timedelta(seconds=1))
            for number, state in enumerate(states)
        ]
        found = await store.write(lambda tx: reports._record(tx, items))
        node = await store.read(lambda tx: node_rows.get(tx, "node-a"))
    finally:
        await store.close()

    assert node is not None
    last = [each.launches[-1] for each in found]
    assert [row and row.state for row in last] == ["STARTING", "READY", "EXITED"]
    assert [len(each.launches) for each in found] == [MOST_REPORTS] * 3
    assert all(each.changed for each in found)


async def test_a_report_that_cannot_be_recorded_ends_no_links_reports(tmp_path: Path) -> None:
    """Neither those that share its commit, nor the others of its own link; it is skipped, and said."""
    store, skipped = open_store(tmp_path), list[str]()

    def prepare(tx: Transaction) -> list[LaunchRow]:
        for name in ("node-a", "node-b"):
            join(tx, name)
        return [
            begin(tx, create(tx), node=node, device=device)
            for node, device in (("node-a", "GPU-0"), ("node-a", "GPU-1"), ("node-b", "GPU-0"))
        ]

    recorder = ReportRecorder(
        store, Signals(), Metrics(), clock=lambda: NOW + 10 * S, supervisor=Supervisor(skipped.append)
    )
    try:
        bad, same_link, other_link = await store.write(prepare)
        beyond_time = Report.Step(stage="PROCESS_UP", age=Duration(seconds=10**15))
        first = _report(bad, Report.STARTING)
        first.steps.append(beyond_time)
        known = {each.launch_id for each in (bad, same_link, other_link)}
        one, other = AgentLink("node-a", "one", 1, known), AgentLink("node-b", "one", 1, known)
        await asyncio.gather(
            recorder.record(one, [first, _report(same_link, Report.STARTING)]),
            recorder.record(other, [_report(other_link, Report.STARTING)]),
        )
        rows = await store.read(
            lambda tx: launch_rows.some(tx, [each.launch_id for each in (bad, same_link, other_link)])
        )
    finally:
        await store.close()

    assert [rows[each.launch_id].state for each in (bad, same_link, other_link)] == ["ASSIGNED", "STARTING", "STARTING"]
    assert skipped == ["reports"]
    assert one.accept(first), "it is taken when it comes again"
