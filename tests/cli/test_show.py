"""What people see: golden tables, at a fixed time."""

from __future__ import annotations

from typing import Any

import pytest
from footlights.v1 import application_pb2, node_pb2, session_pb2, token_pb2
from google.protobuf.duration_pb2 import Duration

from footlights.cli import show
from footlights.cli.output import table
from footlights.protocol.enums import field_name
from tests.cli.samples import NOW_S, S, at, milestones, node, pending, session


def lines(text: str) -> list[str]:
    """A golden text's lines, without its margin."""
    return [line.removeprefix("        ") for line in text.strip("\n").splitlines()]


def test_sessions_as_a_table() -> None:
    """State, place, age and why, aligned; a pending one says where it stands in the queue."""
    sessions = [
        session(),
        pending(),
        session(S.FAILED, "s-3", end_reason=S.CRASHED, status_message="it exited\nwith 3"),
        session(S.ACTIVE, "s-4", condition=S.UNREACHABLE),
    ]

    shown = table(show.SESSION_HEADERS, [show.session_row(item, NOW_S) for item in sessions])

    assert (
        shown
        == lines("""
        SESSION  APPLICATION  VERSION  STATE                 USER  NODE   DEVICE      AGE    MESSAGE
        s-1      usd-viewer   1.0.0    READY                 ada   gpu-1  NVIDIA L40  3m10s
        s-2      usd-viewer   1.0.0    PENDING               ada   -      -           3m10s  \
number 3 in the queue, about 40s: NO_SLOT: 2 devices
        s-3      usd-viewer   1.0.0    FAILED                ada   gpu-1  NVIDIA L40  3m10s  it exited with 3
        s-4      usd-viewer   1.0.0    ACTIVE (UNREACHABLE)  ada   gpu-1  NVIDIA L40  3m10s
        """)[:5]
    )


def test_a_session_in_detail() -> None:
    """What is unset is left out; the timeline has its times since the first step."""
    shown = show.session_details(
        session(
            S.FAILED,
            end_reason=S.CRASHED,
            exit_code=3,
            stage_message="/a.usd is not opened: the version takes no stage.",
            labels={"team": "b", "a": "1"},
            timeline=milestones((S.Milestone.QUEUED, 0), (S.Milestone.PLACED, 0.25), (S.Milestone.ENDED, 12)),
            log_tail=["boom"],
        )
    )

    assert (
        shown
        == lines("""
        Session      s-1
        Application  usd-viewer 1.0.0
        State        FAILED
        Condition    OK
        End reason   CRASHED
        Stage        /a.usd is not opened: the version takes no stage.
        Exit code    3
        User         ada
        Labels       a=1, team=b
        Node         gpu-1
        Device       NVIDIA L40
        Created      2026-01-01T23:56:50Z
        Timeline     QUEUED +0.0s, PLACED +0.2s, ENDED +12.0s

        Last lines of its output:
          boom
        """)[:16]
    )


def test_all_limits_of_a_session_are_shown() -> None:
    """With the word for those that do not apply; of a server of the release before, the two that it has."""
    applied = application_pb2.Limits(
        start_timeout=Duration(seconds=900), max_duration=Duration(seconds=7200), unlimited=["idle_timeout"]
    )
    shown = show.session_details(session(S.READY, limits=applied, expected_end_time=at(0), created_by="portal"))
    before = show.session_details(session(S.READY, max_duration=Duration(seconds=60)))

    assert [
        " ".join(line.split()) for line in shown if line.split()[0] in ("Start", "Max", "Idle", "Expected", "Created")
    ] == [
        "Created by portal",
        "Created 2026-01-01T23:56:50Z",
        "Expected end 2026-01-02T00:00:00Z",
        "Start timeout 15m",
        "Idle timeout unlimited",
        "Max duration 2h",
    ]
    assert [" ".join(line.split()) for line in before if line.startswith(("Max", "Idle"))] == ["Max duration 1m"]


def test_a_value_of_a_later_release_is_shown_by_its_text() -> None:
    """Where the server does not know it either, it sends the text."""
    odd = session(S.STATE_UNSPECIFIED, unknown_values={"state": "PAUSED"})

    assert show.session_row(odd, NOW_S)[3] == "PAUSED"
    assert "PAUSED" in show.session_line(odd)


def test_nodes_as_a_table() -> None:
    """Devices are counted by name, slots summed."""
    assert (
        show.node_table([node()], NOW_S)
        == lines("""
        NODE   STATE  SCHEDULING  DEVICES         SLOTS  SESSIONS  DRIVER  AGENT  SEEN
        gpu-1  READY  -           1 x NVIDIA L40  1/2    1         580.1   0.1.0  2s
        """)[:2]
    )


def test_a_node_in_detail() -> None:
    """Its facts and notes, then its devices with their health and why."""
    lost = node_pb2.Device(
        uuid="GPU-2",
        kind=node_pb2.Device.GPU,
        health=node_pb2.Device.LOST,
        health_reasons=[node_pb2.Device.HealthReason(reason="GPU_IS_LOST", message="off the bus")],
    )
    facts = node_pb2.NodeFacts(hostname="gpu-1", notes=["one", "two"])

    shown = show.node_details(node(facts=facts, devices=[node().devices[0], lost]))

    assert (
        shown
        == lines("""
        Node       gpu-1
        State      READY
        Host       gpu-1
        Sessions   1
        Last seen  2026-01-01T23:59:58Z
        Note       one
        Note       two

        DEVICE  KIND  NAME        FREE MEMORY    BUSY  SLOTS  HEALTH  WHY
        GPU-1   GPU   NVIDIA L40  40.0/48.0 GiB  12%   1/2    OK
        GPU-2   GPU               -              -     0/0    LOST    GPU_IS_LOST off the bus
        """)[:11]
    )


def test_a_node_shows_what_is_wanted_of_it_beside_what_is_observed() -> None:
    """A silent node shows that it is cordoned, by whom, since when and why."""
    wanted = node_pb2.Node.Scheduling(
        cordoned=True, reason="OPERATOR", message="broken fan", subject="ann", since_time=at(60)
    )
    silent = node(state=node_pb2.Node.UNREACHABLE, condition=node_pb2.Node.DISCONNECTED, scheduling=wanted)
    reboot = node_pb2.Node.Scheduling(cordoned=True, reason="NODE_REBOOT_NEEDED", message="GPU-1: ECC")
    details = "\n".join(show.node_details(silent))

    assert show.node_table([silent], NOW_S)[1].split()[:3] == ["gpu-1", "UNREACHABLE", "cordoned"]
    assert "Condition   DISCONNECTED" in details
    assert "Scheduling  cordoned by ann since 2026-01-01T23:59:00Z: broken fan" in details
    assert "cordoned: NODE_REBOOT_NEEDED: GPU-1: ECC" in "\n".join(show.node_details(node(scheduling=reboot)))
    wanted.draining = True
    assert show.node_table([node(scheduling=wanted)], NOW_S)[1].split()[2] == "draining"


def test_a_device_that_is_left_alone_says_so_and_why() -> None:
    """Its quarantine stands beside its health, and what happened to it below."""
    device = node_pb2.Device()
    device.CopyFrom(node().devices[0])
    device.quarantine = "GPU_LOST: ended sessions, 1 times; returns in 40 s if it stays well"
    before = "\n".join(show.node_details(node(devices=[device])))
    device.quarantine_status.reason = "GPU_LOST"
    device.quarantine_status.message = "ended sessions, 1 times; it returns if it stays well."
    device.quarantine_status.until_time.CopyFrom(at(-40))
    device.events.add(time=at(0), reason="GPU_LOST", message="The device is lost.")

    shown = "\n".join(show.node_details(node(devices=[device])))

    told = "QUARANTINED until 2026-01-02T00:00:40Z: GPU_LOST: ended sessions, 1 times; it returns if it stays well."
    assert told in shown
    assert "QUARANTINED GPU_LOST: ended sessions, 1 times; returns in 40 s if it stays well" in before
    assert shown.splitlines()[-2].split() == ["TIME", "DEVICE", "EVENT", "WHAT"]
    assert shown.splitlines()[-1].split(maxsplit=3)[1:] == ["GPU-1", "GPU_LOST", "The device is lost."]


def test_an_explanation() -> None:
    """The verdict first, then every node and device with its reason."""
    answer = session_pb2.ExplainPlacementResponse(queue_position=2)
    verdict = answer.nodes.add(node="gpu-1", reason="FITS")
    verdict.devices.add(device="GPU-1", device_name="NVIDIA L40", reason="MEMORY", message="11<16 GiB")

    assert (
        show.verdicts(answer)
        == lines("""
        It would wait as number 2.

        NODE   DEVICE      VERDICT  WHY
        gpu-1              FITS
        gpu-1  NVIDIA L40  MEMORY   11<16 GiB
        """)[:5]
    )


def test_why_and_how_long_something_waits() -> None:
    """In the words for people; of a server of the release before, in the texts that it has."""
    why = S.WaitReason(reason="NO_SLOT", device_count=2, message="2 devices: all slots are leased")
    old: dict[str, Any] = {"reasons": ["NO_SLOT: 2 devices"], "eta": Duration(seconds=40)}
    new = {**old, "wait_reasons": [why], "estimated_wait_duration": Duration(seconds=50)}
    queues = [S.Queue(position=3, **old), S.Queue(position=3, **new), S.Queue(wait_reasons=[why]), S.Queue()]
    answers = [session_pb2.ExplainPlacementResponse(queue_position=3, node_count=9, **each) for each in (old, new)]
    for answer in answers:
        answer.nodes.add(node="gpu-1", reason="NO_DEVICE")

    assert [show.waiting(session(S.PENDING, queue=queue)) for queue in queues] == [
        "number 3 in the queue, about 40s: NO_SLOT: 2 devices",
        "number 3 in the queue, about 50s: NO_SLOT: 2 devices: all slots are leased",
        "NO_SLOT: 2 devices: all slots are leased",
        "",
    ]
    assert [show.verdicts(answer)[0] for answer in answers] == [
        "It would wait as number 3, about 40s.",
        "It would wait as number 3, about 50s.",
    ]
    assert [show.verdicts(answer)[-1].partition("All nodes: ")[2] for answer in answers] == [
        "NO_SLOT: 2 devices.",
        "NO_SLOT: 2 devices: all slots are leased.",
    ]


def test_an_explanation_that_shows_only_some_nodes_says_so() -> None:
    """How many there are, and the reasons over all of them."""
    answer = session_pb2.ExplainPlacementResponse(node_count=1000, reasons=["NO_SLOT: 600 devices", "CORDONED: 1 node"])
    answer.nodes.add(node="gpu-1", reason="CORDONED")

    last = show.verdicts(answer)[-1]

    assert last == ("1 of 1000 nodes are shown, some of each kind. All nodes: NO_SLOT: 600 devices; CORDONED: 1 node.")


def test_tokens_as_a_table() -> None:
    """Good, expired and revoked ones are told apart."""
    tokens = [
        token_pb2.Token(token_id="a", role=token_pb2.Token.OPERATOR, subject="root", created_time=at(86400)),
        token_pb2.Token(token_id="b", role=token_pb2.Token.NODE, subject="gpu-1", expire_time=at(1)),
        token_pb2.Token(token_id="c", role=token_pb2.Token.NODE, subject="gpu-1", revoked_time=at(1)),
    ]

    assert (
        show.token_table(tokens, NOW_S)
        == lines("""
        TOKEN  ROLE      SUBJECT  STATE    AGE  EXPIRES               DESCRIPTION
        a      OPERATOR  root     VALID    1d   never
        b      NODE      gpu-1    EXPIRED  -    2026-01-01T23:59:59Z
        c      NODE      gpu-1    REVOKED  -    never
        """)[:4]
    )


def test_a_value_newer_than_this_client_is_shown_by_number() -> None:
    """New enum values may be added: an old client must not fail on them."""
    assert field_name(S(state=99), "state") == "99"  # type: ignore[arg-type]  # what an older client would see


def test_an_empty_table_says_so_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """stdout stays empty for scripts that read it."""
    assert table(("A",), [], empty="Nothing.") == []
    assert capsys.readouterr().err == "Nothing.\n"
