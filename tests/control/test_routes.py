"""By which hosts a session is reached: one wherever signalling and media can both be reached there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from footlights.v1 import application_pb2, node_pb2, session_pb2

from footlights.control.routes import Origin, add_routes
from footlights.control.settings import ServerSettings
from tests.control.harness import control, version

NODE = "192.0.2.7"
ENTRANCE = node_pb2.NodeFacts.Entrance
SIGN_IN = application_pb2.Signaling(websocket_path="/sign_in")
AT_PORTS = ENTRANCE(session_ports=True)
AT_443 = ENTRANCE(session_ports=True, port=443, tls=True)


def routed(
    public_url: str,
    entrance: node_pb2.NodeFacts.Entrance | None,
    signaling: application_pb2.Signaling = SIGN_IN,
    **settings: Any,
) -> tuple[dict[str, dict[str, int]], str]:
    """Return the routes of a session, by host, as the port that is dialled for each; and the note on them."""
    origin = Origin.of(public_url, ServerSettings(Path("/nowhere"), **settings))
    facts = node_pb2.NodeFacts(public_address=NODE, entrance=entrance)
    launch: Any = SimpleNamespace(node="node-a", signal_port=20000, media_port=20001, secret=b"sealed")
    session = session_pb2.Session()
    add_routes(session, launch, signaling, facts, origin)
    hosts = {
        host: {route.description: route.source_port for route in found.routes} for host, found in session.routes.items()
    }
    return hosts, session.routes_message


@pytest.mark.parametrize(
    ("public_url", "entrance", "settings", "signaling"),
    [
        ("http://192.0.2.7:8080", None, {}, 8080),
        ("http://192.0.2.7", None, {}, 80),
        ("https://192.0.2.7", None, {}, 443),
        ("http://streams.example.com", AT_PORTS, {}, 20000),
        ("http://streams.example.com", ENTRANCE(session_ports=True, port=9000), {}, 9000),
        ("http://streams.example.com", AT_443, {}, 443),
        ("https://streams.example.com", AT_443, {}, 443),
        ("https://streams.example.com", None, {"direct_routes": True}, 20000),
    ],
)
def test_the_host_of_media_takes_signalling(
    public_url: str, entrance: node_pb2.NodeFacts.Entrance | None, settings: dict[str, Any], signaling: int
) -> None:
    """It is the only key, and nothing is to be said of it."""
    assert routed(public_url, entrance, **settings) == ({NODE: {"signaling": signaling, "media": 20001}}, "")


@pytest.mark.parametrize(
    ("public_url", "entrance", "settings", "says"),
    [
        ("http://streams.example.com", None, {}, "agent of node node-a is of the release before. Install this one"),
        ("http://streams.example.com", ENTRANCE(), {}, "start the agent of node node-a with --signaling-listen"),
        ("https://streams.example.com", AT_PORTS, {}, "--signaling-listen :443, --signaling-cert and --signaling-key"),
        ("https://streams.example.com", ENTRANCE(port=9000), {}, "signalling has TLS"),
        ("http://streams.example.com", AT_443, {"node_signaling": False}, "started with --no-node-signaling"),
        ("http://0.0.0.0:8080", AT_PORTS, {}, "Start it with --public-url"),
        ("http://127.0.0.1:8080", AT_PORTS, {}, "Start it with --public-url"),
        ("http://localhost:8080", AT_443, {}, "Start it with --public-url"),
    ],
)
def test_where_it_cannot_the_reason_is_said(
    public_url: str, entrance: node_pb2.NodeFacts.Entrance | None, settings: dict[str, Any], says: str
) -> None:
    """Nothing that is encrypted on the way to the server is given to a node without."""
    hosts, note = routed(public_url, entrance, **settings)

    assert len(hosts) == 2
    assert hosts[NODE] == {"media": 20001}
    assert says in note
    assert NODE in note


@pytest.mark.parametrize(
    ("signaling", "says"),
    [
        (application_pb2.Signaling(whep_path="/whep"), "has no signaling.websocket_path"),
        (application_pb2.Signaling(websocket_path="/sign_in", checks_secret=True), "itself checks who connects"),
    ],
)
def test_an_application_that_its_node_cannot_take_viewers_for_says_so(
    signaling: application_pb2.Signaling, says: str
) -> None:
    """At its own port: one that has no such signalling, or that a viewer would not get past."""
    hosts, note = routed("http://streams.example.com", AT_PORTS, signaling)

    assert len(hosts) == 2
    assert says in note


def test_what_players_cannot_dial_is_said_although_it_is_one_host() -> None:
    """They use TLS at port 443 alone; and WHEP not at all."""
    hosts, other_port = routed("https://192.0.2.7:8443", None)
    _, whep = routed("http://192.0.2.7", None, application_pb2.Signaling(whep_path="/whep"))

    assert hosts == {NODE: {"signaling": 8443, "media": 20001}}
    assert "port 8443" in other_port
    assert "forceWSS" in other_port
    assert "NVIDIA's players cannot connect" in whep


async def test_a_node_is_told_where_to_pass_viewers_on_to(tmp_path: Path, migrated: Path) -> None:
    """With the welcome; not where its ports are open to viewers, or where it is not to."""
    told = {}
    cases: dict[str, dict[str, Any]] = {"": {}, "direct": {"direct_routes": True}, "off": {"node_signaling": False}}
    for name, settings in cases.items():
        async with control(tmp_path / f"plane{name}", migrated, **settings) as plane:
            agent = await plane.agent()
            told[name] = agent.welcome.front_door

    assert told == {"": "https://streams.example.com", "direct": "", "off": ""}


async def test_a_list_has_the_same_routes(tmp_path: Path, migrated: Path) -> None:
    """Of sessions of several versions, each by its own signalling."""
    async with control(tmp_path, migrated) as plane:
        await plane.apply(version(), version("2.0.0", signaling=application_pb2.Signaling(whep_path="/whep")))
        agent = await plane.agent(facts={"entrance": {"session_ports": True, "port": 443, "tls": True}})
        made = [await plane.create(application_version=number) for number in ("1.0.0", "2.0.0")]
        await plane.place()
        await agent.ready(made[0].session_id)
        listed = (await plane.rest("GET", "/v1/sessions")).json()["items"]
        routes = {each["session_id"]: (each["routes"], each["routes_message"]) for each in listed}
        one = (await plane.rest("GET", f"/v1/sessions/{made[0].session_id}")).json()

    assert routes[made[0].session_id] == (one["routes"], "")
    assert list(one["routes"]) == [NODE]
