from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from footlights.agent.v1 import agent_pb2
from footlights.v1 import application_pb2, node_pb2, profile_pb2, session_pb2, token_pb2
from prometheus_client.parser import text_string_to_metric_families

from footlights.control.observability.metrics import Metrics
from footlights.control.observability.process_metrics import SHED, WAKEUPS
from footlights.lifecycle import LIVE_STATES, EndReason
from footlights.status import CODE_NAMES
from tests.deploy import DEPLOY
from tests.system.stack import Stack, until

ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "footlights.json"
_TARGET_LABELS = {"job", "instance"}
_OF_EVERY_PROCESS = {"process_virtual_memory_bytes", "process_start_time_seconds"}
"""Figures that come with the others of their kind; nobody has to show them."""
_METHODS = {
    method.name
    for module in (agent_pb2, application_pb2, node_pb2, profile_pb2, session_pb2, token_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
_VALUES: Mapping[tuple[str, str], set[str]] = {
    ("footlights_sessions", "state"): {str(state) for state in LIVE_STATES},
    ("footlights_nodes", "state"): set(node_pb2.Node.State.keys()),
    ("footlights_slots", "state"): {"leased", "free", "unusable"},
    ("footlights_slots", "kind"): set(node_pb2.Device.Kind.keys()),
    ("footlights_session_ends_total", "reason"): {str(reason) for reason in EndReason},
    ("footlights_replicas", "state"): {"live", "gone"},
    ("footlights_wakeups_total", "source"): set(WAKEUPS),
    ("footlights_calls_shed_total", "reason"): set(SHED),
    ("grpc_server_handled_total", "grpc_code"): {"OK", *CODE_NAMES.values()},
    ("grpc_server_handled_total", "grpc_method"): _METHODS,
    ("grpc_server_handling_seconds_bucket", "grpc_method"): _METHODS,
}


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Every series that a control plane exports, with its labels, read from its own text."""
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(_metrics().text().decode())
        for sample in family.samples
    }


def _metrics() -> Metrics:
    """Figures of a control plane in which everything has happened once."""
    metrics = Metrics()
    metrics.call("/footlights.v1.StreamingService/GetSession", "OK", 0.1)
    metrics.ended("IDLE_TIMEOUT")
    metrics.started(1.0)
    metrics.refused("FOREIGN_PROCESS")
    metrics.placed(0.1)
    metrics.fleet({("READY", "a"): 1}, {("GPU", "free"): 1}, {"READY": 1})
    metrics.linked(1)
    metrics.committed(0.01)
    metrics.queued(1)
    metrics.shed("LINKS")
    metrics.replicas(live=2, gone=1)
    metrics.woken("notify")
    metrics.lagged(0.001)
    return metrics


def _alerts() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def _panels() -> Iterator[tuple[str, str]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]


def _parsed(query: str) -> Any:
    """Parse a query, with Grafana's own variables filled in."""
    return promql_parser.parse(query.replace("$__rate_interval", "1m").replace("$instance", ".*"))


def _selectors(query: str) -> list[Any]:
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)

    promql_parser.walk(_parsed(query), pre_visit=visit)
    return found


QUERIES = [*_alerts(), *_panels()]


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_queries_ask_for_what_is_exported(where: str, query: str, exported: dict[str, set[str]]) -> None:
    """
    Every query parses, and names only series, labels and values that a control plane exports.
    """
    selectors = [selector for selector in _selectors(query) if selector.name != "up"]

    for selector in selectors:
        assert selector.name in exported, f"{where}: {selector.name} is not exported"
        for matcher in selector.matchers.matchers:
            if matcher.name in _TARGET_LABELS:
                continue
            assert matcher.name in exported[selector.name], f"{where}: {selector.name} has no label {matcher.name}"
            values = _VALUES[selector.name, matcher.name]
            for pattern in matcher.value.split("|"):
                assert any(re.fullmatch(pattern, value) for value in values), f"{where}: nothing is {pattern!r}"
    assert selectors or "up{" in query


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_queries_group_by_labels_that_there_are(where: str, query: str, exported: dict[str, set[str]]) -> None:
    """
    What a query groups by, some series in it has.
    """
    there = set().union(*(exported.get(selector.name, set()) for selector in _selectors(query))) | _TARGET_LABELS
    for labels in re.findall(r"\bby \(([^)]*)\)", query):
        assert {label.strip() for label in labels.split(",")} <= there, where


def test_every_figure_is_shown(exported: dict[str, set[str]]) -> None:
    """
    No figure is exported that neither the dashboard nor an alert uses.
    """
    used = {selector.name for _, query in QUERIES for selector in _selectors(query)}
    families = {re.sub(r"_(bucket|sum|count|created|total)$", "", name) for name in exported}
    shown = {re.sub(r"_(bucket|sum|count|total)$", "", str(name)) for name in used}

    assert families - _OF_EVERY_PROCESS <= shown


def test_figures_are_named_as_prometheus_has_it(exported: dict[str, set[str]]) -> None:
    """
    Names have our prefix or a common one and base units; counters end in _total; no label grows with use.
    """
    families = text_string_to_metric_families(_metrics().text().decode())
    ours = [family for family in families if not family.name.startswith("process_")]

    for family in ours:
        assert family.name.startswith(("footlights_", "grpc_server_")), family.name
        assert not re.search(r"_(ms|milliseconds|minutes|kib|mib|percent|count)$", family.name), family.name
        assert family.documentation.endswith("."), family.name
        for sample in family.samples:
            assert family.type != "counter" or sample.name.endswith(("_total", "_created")), sample.name
            assert not sample.labels.keys() & {"session", "session_id", "user", "username", "subject", "node", "token"}
    assert all(family.name.endswith("_seconds") for family in ours if family.type == "histogram")


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_replicas_are_not_counted_twice(where: str, query: str) -> None:
    """
    The gauges of the fleet, which every replica may tell, are never added up over instances.
    """
    assert not re.search(
        r"\bsum(?: by \([^)]*\))? ?\((footlights_(sessions|slots|nodes|stuck_sessions|brake))\b", query
    )


async def test_a_real_server_exports_what_is_asked_for(tmp_path: Path) -> None:
    """
    Every series that an alert or a panel asks for is among those that a server process shows on /metrics; what it does
    all the time is measured, not only declared.
    """
    asked = {str(selector.name) for _, query in QUERIES for selector in _selectors(query)} - {"up"}
    moving = ("footlights_store_commit_seconds", "footlights_loop_lag_seconds")
    async with Stack(tmp_path / "stack", server_options=("--max-concurrent-calls=1",)) as stack:
        refused = await stack.call("GET", "/stream/none")
        await stack.register_fake()
        async with stack.watching("/stream:watch"):
            shed = await stack.call("GET", "/stream")

        async def measured() -> str:
            text = (await stack.call("GET", "/metrics")).text
            return "" if re.search(rf"^({'|'.join(moving)})_count 0.0$", text, re.MULTILINE) else text

        text = str(await until(measured, what="commits and the loop are measured"))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    shown = {sample.name for family in families.values() for sample in family.samples}
    # These have series only while there is something to show.
    declared = {
        name for name in asked if name.startswith(("footlights_sessions", "footlights_slots", "footlights_nodes"))
    }

    assert (refused.status_code, shed.status_code) == (404, 503)
    assert 'footlights_calls_shed_total{reason="CALLS"} 1.0' in text
    assert asked - declared <= shown
    assert declared <= families.keys()


def test_alerts_say_what_to_do() -> None:
    """
    Every alert has a severity, a sentence for whoever is woken, and where to look.
    """
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
            assert rule["annotations"]["summary"].endswith("."), rule["alert"]
            assert rule["annotations"]["description"].endswith("."), rule["alert"]


def test_dashboard_is_whole() -> None:
    """
    The dashboard has no data source of its own, no panel twice, and none on top of another.
    """
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"} == {"${datasource}"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")),
        ("test", "rules", str(Path(__file__).with_name("alerts.test.yaml"))),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool(arguments: tuple[str, ...]) -> None:
    """
    Prometheus' own tool reads the configuration, and the alerts fire and stay silent as alerts.test.yaml says.
    """
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on this machine (Debian: prometheus)")
    run = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
