"""Lists: cut into pages by number and by bytes, all of them by one mechanism, with tokens that are good for one list.

Covers `pages`, `sealed`, `node_filters` and the list of `streams`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from footlights.ovc.v2 import application_streaming_pb2 as ovc_pb2
from footlights.ovc.v2.application_streaming_pb2_grpc import ApplicationStreamingServiceStub
from footlights.v1 import application_pb2, node_pb2, profile_pb2, session_pb2, token_pb2
from footlights.v1.application_pb2_grpc import ApplicationServiceStub
from footlights.v1.node_pb2_grpc import NodeServiceStub
from footlights.v1.session_pb2_grpc import StreamingServiceStub
from google.protobuf.struct_pb2 import Struct
from sqlalchemy import insert, select, update

from footlights import errors, ids
from footlights.control.call.pages import PAGE_BYTES, WHOLE_BYTES
from footlights.control.call.sealed import digest
from footlights.control.services import node_filters
from footlights.protocol.output import bounded_tail
from footlights.store import Transaction, applications
from footlights.store.nodes import device_history
from footlights.store.schema import DEVICE, LAUNCH, SESSION, LaunchRow, NodeRow, SessionRow
from footlights.store.sessions.listing import ORDERS
from tests.control.harness import Control, gpu, problem, version
from tests.store.rows import NOW, S, join, values

LISTS: dict[str, tuple[str, Any]] = {
    "sessions": ("StreamingService.ListSessions", session_pb2.ListSessionsRequest()),
    "applications": ("ApplicationService.ListApplications", application_pb2.ListApplicationsRequest()),
    "versions": ("ApplicationService.ListVersions", application_pb2.ListVersionsRequest(application="fake")),
    "releases": ("ApplicationService.ListReleases", application_pb2.ListReleasesRequest(application="fake")),
    "profiles": ("ProfileService.ListProfiles", profile_pb2.ListProfilesRequest()),
    "nodes": ("NodeService.ListNodes", node_pb2.ListNodesRequest()),
    "tokens": ("TokenService.ListTokens", token_pb2.ListTokensRequest()),
}


async def filled(plane: Control) -> None:
    """Seven of everything."""
    numbers = [f"1.{number}.0" for number in range(1, 7)]
    await plane.apply(*map(version, numbers), releases={f"r{number}": numbers[0] for number in range(6)})
    for number in range(7):
        await plane.create()
        await plane.apply(application=f"app-{number}")
        await plane.token(subject=f"user-{number}")
        profile = profile_pb2.Profile(profile=f"p{number}")
        await plane.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile))
    await plane.store.write(lambda tx: [join(tx, f"node-{number}") for number in range(7)] and None)


async def walk(plane: Control, method: str, request: Any, limit: int) -> list[Any]:
    """Follow the tokens to the end; return the pages."""
    pages = []
    request.limit = limit
    while True:
        page = await plane.call(method, request)
        pages.append(page)
        if not page.next_page_token:
            return pages
        request.page_token = page.next_page_token


@pytest.fixture
async def full(plane: Control) -> Control:
    await filled(plane)
    return plane


async def test_every_list_has_pages(full: Control) -> None:
    """Each item once, in the order that the list has without pages; the last page has no token."""
    for name, (method, request) in LISTS.items():
        whole = await full.call(method, request)
        pages = await walk(full, method, type(request).FromString(request.SerializeToString()), limit=2)

        assert len(whole.items) >= 7, name
        assert not whole.next_page_token
        assert [item for page in pages for item in page.items] == list(whole.items), name
        assert [len(page.items) for page in pages[:-1]] == [2] * (len(pages) - 1)


async def test_a_token_is_good_for_one_list_and_one_query(full: Control) -> None:
    """Of any other it is refused, with what to do; it would leave items out without a word."""
    tokens = {}
    for name, (method, request) in LISTS.items():
        again = type(request).FromString(request.SerializeToString())
        again.limit = 1
        tokens[name] = (await full.call(method, again)).next_page_token
    wrong: list[tuple[str, Any, str]] = []
    for name, (method, request) in LISTS.items():
        for other, token in tokens.items():
            if other != name:
                again = type(request).FromString(request.SerializeToString())
                again.page_token = token
                wrong.append((method, again, f"belongs to a list of {other}, and this is one of {name}"))
    sessions, nodes = LISTS["sessions"][0], LISTS["nodes"][0]
    for members in (
        {"username": "ann"},
        {"order_by": "created_time desc"},
        {"order": "DESC"},
        {"filter": "priority = 0"},
        {"include_ended": True},
        {"state": [session_pb2.Session.PENDING]},
    ):
        query = session_pb2.ListSessionsRequest(page_token=tokens["sessions"], **members)
        wrong.append((sessions, query, "other filters or another order"))
    wrong.append(
        (nodes, node_pb2.ListNodesRequest(page_token=tokens["nodes"], filter="cordoned = true"), "other filters")
    )
    bare = base64.urlsafe_b64decode(tokens["nodes"] + "==")
    for bad in (b"\x02" + bare[1:], bare[:-1] + bytes([bare[-1] ^ 1]), b"", b"\x01"):
        text = base64.urlsafe_b64encode(bad).decode().rstrip("=") or "!"
        wrong.append((nodes, node_pb2.ListNodesRequest(page_token=text), "is not a page token of this list"))
    wrong.append((nodes, node_pb2.ListNodesRequest(page_token="ünï"), "is not a page token of this list"))
    wrong.append((nodes, node_pb2.ListNodesRequest(page_token="W10"), "is not a page token of this list"))

    for method, request, says in wrong:
        with pytest.raises(errors.InvalidArgument, match=says) as caught:
            await full.call(method, request)
        assert (caught.value.field, caught.value.reason) == ("page_token", "INVALID_PAGE_TOKEN")


async def test_tokens_of_the_release_before_are_accepted(full: Control) -> None:
    """Of sessions, in both orders, and of applications; nothing in one is believed, for nobody sealed it."""
    method, _ = LISTS["sessions"]
    items = list((await full.call(method, session_pb2.ListSessionsRequest())).items)
    third = items[2]
    created = third.created_time.ToMicroseconds()
    filters = "Filter(states=(), username='', application='', from_time=None, to_time=None, labels=(), search='')"
    for by, place in (
        ("created_time", [created, third.session_id]),
        ("username", [third.username, created, third.session_id]),
    ):
        text = f"({filters}, Order(by='{by}', descending=False))"
        content = [hashlib.sha256(text.encode()).hexdigest()[:12], *place]
        token = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
        page = await full.call(method, session_pb2.ListSessionsRequest(page_token=token, sort_by=by))
        with pytest.raises(errors.InvalidArgument, match="is not a page token"):
            await full.call(method, session_pb2.ListSessionsRequest(page_token=token, sort_by=by, order="DESC"))
        assert list(page.items) == items[3:]
        # A cursor of now would miss what has changed since the first page; none begins again.
        assert page.cursor == ""
    for forged in (5, [], {"a": 1}, ["x"], [1, 2, 3]):
        token = base64.urlsafe_b64encode(json.dumps(forged).encode()).decode()
        with pytest.raises(errors.InvalidArgument, match="is not a page token"):
            await full.call(method, session_pb2.ListSessionsRequest(page_token=token))

    page = await full.call(LISTS["applications"][0], application_pb2.ListApplicationsRequest(page_token="app-4"))
    assert [item.application for item in page.items] == ["app-5", "app-6", "fake"]


def test_a_member_that_nobody_sets_changes_no_token() -> None:
    """A later release has more members, with or without a default; the order of a set, too, says nothing."""
    states = [session_pb2.Session.READY, session_pb2.Session.PENDING]
    released = digest(session_pb2.FollowSessionsRequest(username="ann", state=states))
    later = session_pb2.ListSessionsRequest(username="ann", state=states[::-1], sort_by="created_time", order="ASC")

    assert digest(later) == released
    later.order = "DESC"
    assert digest(later) != released
    assert digest(later, without=["order"]) == released


async def test_an_item_that_comes_or_goes_shifts_nothing(full: Control) -> None:
    """The place of a token may be gone."""
    method, _ = LISTS["profiles"]
    first = await full.call(method, profile_pb2.ListProfilesRequest(limit=3))
    await full.call("ProfileService.DeleteProfile", profile_pb2.DeleteProfileRequest(profile="p2"))
    await full.call(
        "ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile_pb2.Profile(profile="a"))
    )
    rest = await full.call(method, profile_pb2.ListProfilesRequest(page_token=first.next_page_token))

    assert [item.profile for item in (*first.items, *rest.items)] == [f"p{number}" for number in range(7)]


async def test_a_page_of_what_matches_is_full_although_others_lie_between(full: Control) -> None:
    """Profiles of one application and nodes of one filter; the brake is on every page."""
    for number in (1, 5):
        profile = profile_pb2.Profile(profile=f"p{number}", matches=[profile_pb2.Profile.Match(application="other")])
        await full.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile))
    for number in (0, 3, 6):
        await full.call("NodeService.CordonNode", node_pb2.CordonNodeRequest(node=f"node-{number}"))
    for _ in range(2):
        await full.reap()

    profiles = await walk(full, LISTS["profiles"][0], profile_pb2.ListProfilesRequest(application="fake"), 2)
    nodes = await walk(full, LISTS["nodes"][0], node_pb2.ListNodesRequest(filter="cordoned = true"), 2)

    assert [[item.profile for item in page.items] for page in profiles] == [["p0", "p2"], ["p3", "p4"], ["p6"]]
    assert [[item.node for item in page.items] for page in nodes] == [["node-0", "node-3"], ["node-6"]]
    assert len({page.brake.reason for page in nodes}) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("node = node-b", "b"),
        ('node = "node-*"', "abc"),
        ("cordoned = true", "a"),
        ("scheduling.cordoned = false", "bc"),
        ("scheduling.draining = true", ""),
        ("state = CORDONED", "a"),
        ("state != CORDONED", "bc"),
        ("condition = CONNECTED", "abc"),
        ("facts.labels.zone = x", "ab"),
        ('facts.labels.zone = "x" AND cordoned = false', "b"),
        ("NOT facts.labels:zone", "c"),
    ],
)
async def test_nodes_are_found_by_filters(plane: Control, text: str, found: str) -> None:
    """By what is wanted of them, by what is observed, and by their labels."""
    for name, labels in (("a", {"zone": "x"}), ("b", {"zone": "x"}), ("c", {})):
        await plane.agent(f"node-{name}", facts={"labels": labels})
    await plane.call("NodeService.CordonNode", node_pb2.CordonNodeRequest(node="node-a"))

    answer = await plane.rest("GET", "/v1/nodes", params={"filter": text})

    assert "".join(item["node"][-1] for item in answer.json()["items"]) == found


async def test_a_wrong_filter_or_order_names_its_position(plane: Control) -> None:
    """And what there is to choose from."""
    for path, params, field, says in (
        ("/v1/sessions", {"filter": "state = READY AND node_ = x"}, "filter", "position 19: unknown member 'node_'"),
        ("/v1/sessions:watch", {"filter": "state ="}, "filter", "position 8: found the end"),
        ("/v1/nodes", {"filter": "username = x"}, "filter", "position 1: unknown member 'username'"),
        ("/v1/sessions", {"order_by": "node"}, "order_by", "choose from created_time, username, priority, ended_time"),
        ("/v1/sessions", {"order_by": "priority desk"}, "order_by", "is no order"),
        ("/v1/sessions", {"order_by": "priority", "order": "DESC"}, "order_by", "cannot be combined with order"),
        ("/v1/sessions", {"order_by": "priority", "offset": 1}, "order_by", "cannot be combined with offset"),
    ):
        answer = await plane.rest("GET", path, params=params)
        assert answer.status_code == 400, params
        assert problem(answer)["field"] == field
        assert says in problem(answer)["message"]


async def test_a_list_has_those_that_ended_where_they_are_asked_for(plane: Control) -> None:
    """By the flag, by a state, or by a filter that names what only they have."""
    living, gone = await plane.create(priority=-1), await plane.create()
    await plane.terminate(gone.session_id)

    async def found(**params: Any) -> list[str]:
        items = (await plane.rest("GET", "/v1/sessions", params=params)).json()["items"]
        return ["living" if item["session_id"] == living.session_id else "gone" for item in items]

    assert await found() == ["living"]
    assert await found(filter="username = admin") == ["living"]
    assert await found(include_ended=True) == ["living", "gone"]
    assert await found(include_ended=True, filter="priority = 0") == ["gone"]
    assert await found(filter="state = TERMINATED OR state = PENDING") == ["living", "gone"]
    assert await found(filter="end_reason = USER_TERMINATED") == ["gone"]
    assert await found(filter='ended_time > "2020-01-01T00:00:00Z"') == ["gone"]
    assert await found(filter="NOT ended_time:*") == ["living"]
    assert await found(state="TERMINATED", filter="state = PENDING") == []
    for by in ORDERS:
        both = await found(include_ended=True, order_by=by)
        assert await found(include_ended=True, order_by=f"{by} desc") == both[::-1]
    assert await found(include_ended=True, order_by="ended_time") == ["gone", "living"]


async def test_a_basic_view_leaves_out_what_is_heavy(plane: Control) -> None:
    """Arguments, timeline and routes of sessions; events of devices."""
    agent = await plane.agent()
    await plane.apply(
        version("2.0.0", arguments=[application_pb2.Argument(name="a", type=application_pb2.Argument.STRING)])
    )
    arguments = Struct()
    arguments.update({"a": "x"})
    await plane.running(agent, application_arguments=arguments)
    await plane.store.write(
        lambda tx: device_history.record(tx, "node-a", "GPU-0", "XID_79", "fell off the bus", now=plane.clock())
    )
    method = LISTS["sessions"][0]
    full_ = (await plane.call(method, session_pb2.ListSessionsRequest())).items[0]
    basic = (
        await plane.call(method, session_pb2.ListSessionsRequest(view=session_pb2.ListSessionsRequest.BASIC))
    ).items[0]
    node = (await plane.call(LISTS["nodes"][0], node_pb2.ListNodesRequest())).items[0]
    whole = (await plane.call(LISTS["nodes"][0], node_pb2.ListNodesRequest(view=node_pb2.ListNodesRequest.FULL))).items[
        0
    ]

    assert full_.application_arguments["a"] == "x"
    assert full_.timeline
    assert full_.routes
    assert not basic.timeline
    assert not basic.routes
    assert not basic.HasField("application_arguments")
    for name in ("timeline", "routes", "application_arguments"):
        full_.ClearField(name)
    assert basic == full_
    assert [event.reason for event in whole.devices[0].events] == ["XID_79"]
    assert list(node.devices[0].events) == []


# What is large


def read_all(tx: Transaction, reading: node_pb2.Device) -> None:
    """Give every device a reading, with its own uuid."""
    for node, uuid in tx.execute(select(DEVICE.c.node, DEVICE.c.uuid)).all():
        reading.uuid = uuid
        mine = (DEVICE.c.node == node, DEVICE.c.uuid == uuid)
        tx.execute(update(DEVICE).where(*mine).values(reading=reading.SerializeToString()))


@pytest.fixture
async def channel(plane: Control) -> AsyncIterator[grpc.aio.Channel]:
    """A stock gRPC channel, which takes messages of 4 MiB, to the control plane on a socket."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(plane.plane.grpc_handlers())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


async def every(plane: Control, method: Any, request: Any) -> tuple[list[Any], int]:
    """Read all pages as a client does that knows nothing; return the items and the size of the largest answer."""
    items, largest = [], 0
    while True:
        page = await method(request, metadata=(("authorization", f"Bearer {plane.admin}"),), timeout=60)
        items += page.items
        largest = max(largest, page.ByteSize())
        if not page.next_page_token:
            return items, largest
        request.page_token = page.next_page_token


async def test_a_thousand_failures_with_long_output_are_listed(plane: Control, channel: grpc.aio.Channel) -> None:
    """Their output, which was 64 MiB, is in no list; what they show is cut into pages.

    In the published API as well, larger ones: its clients go on by the limit that was applied.
    """
    tail = ["x" * 1000] * 70
    arguments = {"note": "n" * 4000}

    def write(tx: Transaction) -> None:
        for number in range(1000):
            row = SessionRow(
                **values(state="FAILED", end_reason="CRASHED", arguments=arguments),
                created_time=NOW + number * S,
                ended_time=NOW + number * S,
                revision=number + 1,
            )
            launch = LaunchRow(
                ids.new_id(), row.session_id, "n", "d", [0], row.created_time, state="EXITED", log_tail=tail,
                ended_time=row.created_time,
            )  # fmt: skip
            tx.execute(insert(SESSION), [row._replace(launch_id=launch.launch_id)._asdict()])
            tx.execute(insert(LAUNCH), [launch._asdict()])

    await plane.store.write(write)
    stub = StreamingServiceStub(channel)
    request = session_pb2.ListSessionsRequest(limit=1000, filter="state = FAILED")
    items, largest = await every(plane, stub.ListSessions, request)
    published: list[str] = []
    while len(published) < 1000:
        asked = ovc_pb2.ListStreamsRequest(limit=1000, offset=len(published), state=[session_pb2.Session.FAILED])
        answer = await ApplicationStreamingServiceStub(channel).ListStreams(
            asked, metadata=(("authorization", f"Bearer {plane.admin}"),), timeout=60
        )
        over_rest = (
            await plane.rest("GET", "/stream", params={"state": "FAILED", "limit": 1000, "offset": len(published)})
        ).json()
        assert answer.ByteSize() <= WHOLE_BYTES + 1000
        assert answer.limit == over_rest["limit"]
        published += [item["session_id"] for item in over_rest["items"]]
        assert answer.limit == len(answer.items) or len(published) == 1000
    by_offset: list[str] = []
    while len(by_offset) < 1000:
        query = session_pb2.ListSessionsRequest(limit=1000, offset=len(by_offset), state=[session_pb2.Session.FAILED])
        page = await plane.call("StreamingService.ListSessions", query)
        assert page.limit == len(page.items) or len(by_offset) + len(page.items) == 1000
        by_offset += [item.session_id for item in page.items]
    one = await plane.get(items[0].session_id)

    assert len({item.session_id for item in items}) == 1000
    assert by_offset == published == [item.session_id for item in items]
    assert largest <= PAGE_BYTES + 1000
    assert not any(item.log_tail for item in items)
    assert list(one.log_tail) == bounded_tail(tail)


async def test_a_thousand_nodes_with_devices_and_events_are_listed(plane: Control, channel: grpc.aio.Channel) -> None:
    """With limit and without, with their events and without."""

    def write(tx: Transaction) -> None:
        reading = gpu(name="NVIDIA RTX PRO 6000 Blackwell", pci_bus_id="0000:01:00.0", note="x" * 60)
        for number in range(1000):
            join(tx, f"node-{number:04}", *(f"GPU-{device}" for device in range(4)))
            if number % 10 == 0:
                for device in range(4):
                    for event in range(25):
                        device_history.record(
                            tx, f"node-{number:04}", f"GPU-{device}", "XID_79", f"{event} " + "y" * 150, now=NOW
                        )
        read_all(tx, reading)

    await plane.store.write(write)
    stub = NodeServiceStub(channel)
    for request in (
        node_pb2.ListNodesRequest(),
        node_pb2.ListNodesRequest(limit=1000),
        node_pb2.ListNodesRequest(limit=1000, view=node_pb2.ListNodesRequest.FULL),
    ):
        most = PAGE_BYTES if request.HasField("limit") else WHOLE_BYTES
        full = request.view == node_pb2.ListNodesRequest.FULL
        items, largest = await every(plane, stub.ListNodes, request)
        assert [item.node for item in items] == [f"node-{number:04}" for number in range(1000)]
        assert largest <= most + 1000
        assert {len(device.events) for item in items for device in item.devices} == ({0, 20} if full else {0})


async def test_a_node_with_very_many_devices_loses_old_events_and_nothing_else(
    plane: Control, channel: grpc.aio.Channel
) -> None:
    """One item is never larger than a page."""

    def write(tx: Transaction) -> None:
        join(tx, "big", *(f"GPU-{device}" for device in range(1000)))
        for device in range(1000):
            for event in range(12):
                device_history.record(tx, "big", f"GPU-{device}", "XID_79", f"{event} " + "y" * 150, now=NOW)
        read_all(tx, gpu())

    await plane.store.write(write)
    [node], largest = await every(
        plane, NodeServiceStub(channel).ListNodes, node_pb2.ListNodesRequest(view=node_pb2.ListNodesRequest.FULL)
    )

    assert largest <= PAGE_BYTES + 1000
    assert len(node.devices) == 1000
    assert all(device.events[-1].message.startswith("11 ") for device in node.devices)


async def test_a_hundred_of_the_largest_versions_are_listed(plane: Control, channel: grpc.aio.Channel) -> None:
    """Each is a quarter of a mebibyte; a page has as many as fit."""
    large = version("1.0.0", environment={f"V{number}": "x" * 8000 for number in range(31)})

    def write(tx: Transaction) -> None:
        for number in range(100):
            large.version = f"2.{number}.0"
            applications.add_version(tx, "fake", large.version, large.SerializeToString(), now=NOW)

    await plane.store.write(write)
    stub = ApplicationServiceStub(channel)
    for request in (
        application_pb2.ListVersionsRequest(application="fake"),
        application_pb2.ListVersionsRequest(application="fake", limit=1000),
    ):
        items, largest = await every(plane, stub.ListVersions, request)
        assert [item.version for item in items] == [*(f"2.{99 - number}.0" for number in range(100)), "1.0.0"]
        assert items[0].ByteSize() > 240_000
        assert largest <= WHOLE_BYTES + 1000


async def test_one_session_is_never_larger_than_a_page(plane: Control) -> None:
    """Its arguments together are bounded when it is created."""
    declared = [
        application_pb2.Argument(name=f"a{number}", type=application_pb2.Argument.STRING, max_length=65536)
        for number in range(16)
    ]
    await plane.apply(version("2.0.0", arguments=declared))
    arguments = Struct()
    arguments.update({f"a{number}": "ü" * 65536 for number in range(16)})

    with pytest.raises(errors.InvalidArgument, match="bytes of JSON: at most 131072") as caught:
        await plane.create(application_arguments=arguments)

    assert caught.value.field == "application_arguments"


def test_a_node_is_filtered_by_the_scheduling_that_it_shows() -> None:
    """One that does not answer and needs a reboot is cordoned, though its state says something else."""
    row = NodeRow("a", "", 1, False, False, False, False, None, b"", NOW, None, None, {}, None, None)
    message = node_pb2.Node(node="a", state=node_pb2.Node.UNREACHABLE)
    message.scheduling.cordoned = True

    assert node_filters.values(row, message)["scheduling.cordoned"] is True
