"""Sessions, nodes and the rest as text for people: rows of tables, and details. Pure; ``now_s`` is Unix time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from footlights.cli.durations import show_duration
from footlights.cli.output import details, table
from footlights.launch.launchers import traits_of
from footlights.protocol.enums import field_name
from footlights.protocol.output import visible

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from footlights.v1 import application_pb2, enrollment_pb2, node_pb2, session_pb2, token_pb2, viewer_pb2

LIMIT_NAMES: Final = (
    "queue_timeout",
    "start_timeout",
    "never_connected_timeout",
    "idle_timeout",
    "max_duration",
    "stop_grace_period",
)
"""The limits of a session, in the order in which they may end it."""

SESSION_HEADERS: Final = ("SESSION", "APPLICATION", "VERSION", "STATE", "USER", "NODE", "DEVICE", "AGE", "MESSAGE")


def session_row(session: session_pb2.Session, now_s: float) -> tuple[str, ...]:
    """Return one row of a table under ``SESSION_HEADERS``."""
    state = value_name(session, "state")
    if field_name(session, "condition") == "UNREACHABLE":
        state = f"{state} (UNREACHABLE)"
    return (
        session.session_id,
        session.application,
        session.application_version,
        state,
        session.username,
        session.node or "-",
        session.device_name or session.device or "-",
        age(session.created_time, now_s),
        waiting(session) or session.status_message or (value_name(session, "end_reason")),
    )


def session_line(session: session_pb2.Session) -> str:
    """Return one change of a session, as a line of a watch."""
    where = f"  on {session.node}, {session.device_name or session.device}" if session.node else ""
    why = value_name(session, "end_reason")
    detail = "  ".join(text for text in (waiting(session), why, session.status_message) if text)
    return f"{session.session_id}  {value_name(session, 'state'):<11}{where}  {detail}".rstrip()


def session_details(session: session_pb2.Session) -> list[str]:
    """Return all of a session, one member per line, then the last lines of its log."""
    from google.protobuf import json_format

    arguments = json_format.MessageToJson(session.application_arguments, indent=None)
    routes = [
        f"{route.description} {host}:{route.source_port}/{route.protocol.lower()}"
        for host, found in session.routes.items()
        for route in found.routes
    ]
    lines = details(
        [
            ("Session", session.session_id),
            ("Application", f"{session.application} {session.application_version}"),
            ("State", value_name(session, "state")),
            ("Condition", value_name(session, "condition")),
            ("Queue", waiting(session)),
            ("End reason", value_name(session, "end_reason")),
            ("Failure", session.failure_reason),
            ("Message", session.status_message),
            ("Stage", session.stage_message),
            ("Exit code", str(session.exit_code) if session.HasField("exit_code") else ""),
            ("User", session.username),
            ("Created by", session.created_by if session.created_by != session.username else ""),
            ("Profile", session.profile),
            ("Priority", str(session.priority) if session.priority else ""),
            ("Arguments", arguments if session.application_arguments.fields else ""),
            ("Labels", mapping(session.labels)),
            ("Node", session.node),
            ("Device", " ".join(text for text in (session.device_name, session.device) if text)),
            ("Viewers", str(session.viewers) if session.HasField("viewers") else ""),
            ("Routes", ", ".join(routes)),
            ("Two hosts", session.routes_message if len(session.routes) > 1 else ""),
            ("Created", moment(session.created_time)),
            ("Ready", moment(session.ready_time)),
            ("Ended", moment(session.ended_time)),
            ("Expected end", moment(session.expected_end_time)),
            *limits(session),
            ("Launches", str(session.launch_count) if session.launch_count > 1 else ""),
            ("Request id", session.request_id),
            ("Etag", session.etag),
            ("Timeline", ", ".join(step for step in steps(session))),
        ]
    )
    if session.log_tail:
        lines += ["", "Last lines of its output:", *(visible(f"  {line}") for line in session.log_tail)]
    return lines


def connection(answer: session_pb2.ConnectSessionResponse) -> list[str]:
    """Return what a viewer's player needs to be told, and for NVIDIA's also in the form that it takes."""
    from google.protobuf import json_format

    lines = details(
        [
            ("Grant", answer.token),
            ("Viewer", answer.viewer_id),
            ("Expires", moment(answer.expire_time)),
            ("WHEP", answer.whep_url),
            ("Signalling", answer.signaling_url),
            ("Ask for stage", answer.usd_stage_uri),
            *(("ICE", " ".join(server.urls)) for server in answer.ice_servers),
        ]
    )
    if answer.app_streamer:
        told = sorted(json_format.MessageToDict(answer.app_streamer).items())
        whole = {name: int(value) if isinstance(value, float) else value for name, value in told}
        text = json.dumps(whole, indent=2)
        lines += ["", "For NVIDIA's player, the streamConfig of AppStreamer.connect:", *map(visible, text.splitlines())]
    elif not answer.whep_url and not answer.signaling_url:
        lines += ["", "The application names no signalling: dial the routes of `footlights sessions show` directly."]
    return lines


def limits(session: session_pb2.Session) -> list[tuple[str, str]]:
    """Return the limits that apply, by name; of a server of the release before, the two that it shows."""
    if not session.HasField("limits"):
        return [
            ("Max duration", _length(session, "max_duration")),
            ("Idle timeout", _length(session, "idle_timeout")),
        ]
    spans = [(name, _length(session.limits, name)) for name in LIMIT_NAMES]
    return [
        (
            name.replace("_", " ").capitalize(),
            (span or ("unlimited" if name in session.limits.unlimited else ""))
            + (", the most that the installation allows" if name in session.limits.capped else ""),
        )
        for name, span in spans
    ]


def steps(session: session_pb2.Session) -> list[str]:
    """Return the steps that a session has reached, each with its time since the first: ``PLACED +0.2s``."""
    begin = _unix_seconds(session.timeline[0].time) if session.timeline else 0.0
    return [f"{field_name(step, 'stage')} +{_unix_seconds(step.time) - begin:.1f}s" for step in session.timeline]


def waiting(session: session_pb2.Session) -> str:
    """Return a pending session's position in the queue, and why it waits; empty for other sessions."""
    why = _reasons(session.queue)
    if not session.queue.position:
        return why
    return f"number {session.queue.position} in the queue{_estimate(session.queue)}" + (f": {why}" if why else "")


def verdicts(answer: session_pb2.ExplainPlacementResponse) -> list[str]:
    """Return whether a session would be placed, then why, node by node and device by device."""
    if answer.fits:
        first = f"It would be placed now, on {answer.node}, device {answer.device}."
    else:
        place = f" as number {answer.queue_position}" if answer.queue_position else ""
        first = f"It would wait{place}{_estimate(answer)}."
        if answer.wait_reasons and answer.wait_reasons[0].reason == "UNSATISFIABLE":
            first = f"It would be set aside: {answer.wait_reasons[0].message}."
    rows = []
    for node in answer.nodes:
        rows.append((node.node, "", node.reason, node.message))
        rows += [
            (node.node, device.device_name or device.device, device.reason, device.message) for device in node.devices
        ]
    if not rows:
        return [first, "There are no nodes."]
    lines = [first, "", *table(("NODE", "DEVICE", "VERDICT", "WHY"), rows)]
    if answer.node_count > len(answer.nodes):
        shown, everything = len(answer.nodes), _reasons(answer)
        lines += ["", f"{shown} of {answer.node_count} nodes are shown, some of each kind. All nodes: {everything}."]
    return lines


def node_table(nodes: Iterable[node_pb2.Node], now_s: float) -> list[str]:
    """Return nodes, one per line."""
    rows = [
        (
            node.node,
            field_name(node, "state"),
            _scheduling(node.scheduling),
            _device_counts(node.devices),
            f"{sum(device.slots_leased for device in node.devices)}/{sum(device.slots for device in node.devices)}",
            str(node.session_count),
            node.facts.driver_version or "-",
            node.facts.agent_version or "-",
            age(node.last_seen_time, now_s),
        )
        for node in nodes
    ]
    headers = ("NODE", "STATE", "SCHEDULING", "DEVICES", "SLOTS", "SESSIONS", "DRIVER", "AGENT", "SEEN")
    return table(headers, rows, empty="No nodes. Start one with 'footlights agent'.")


def _identity(identity: enrollment_pb2.NodeIdentity) -> str:
    if identity.HasField("revoked_time"):
        return f"revoked {moment(identity.revoked_time)}"
    if identity.HasField("expire_time"):
        return f"certificate until {moment(identity.expire_time)}"
    return ""


def _back_off(back_off: node_pb2.Node.BackOff) -> str:
    """Return what is left alone on a node, why, and until when."""
    what = [
        f"launcher {back_off.launcher}" if back_off.launcher else "",
        " ".join(text for text in (back_off.application, back_off.application_version) if text),
        f"device {back_off.device}" if back_off.device else "",
    ]
    when = "a session tries it now" if back_off.trying else f"tried again {moment(back_off.until_time)}"
    failures = f", failed {back_off.failure_count} times" if back_off.failure_count > 1 else ""
    return f"{' '.join(text for text in what if text)}: {back_off.reason}: {back_off.message} ({when}{failures})"


def node_details(node: node_pb2.Node) -> list[str]:
    """Return all of a node, then its devices."""
    lines = details(
        [
            ("Node", node.node),
            ("State", field_name(node, "state")),
            ("Condition", field_name(node, "condition") if node.condition else ""),
            ("Scheduling", _scheduling_details(node.scheduling)),
            ("Host", " ".join(text for text in (node.facts.hostname, node.facts.os) if text)),
            ("Agent", node.facts.agent_version),
            ("Driver", node.facts.driver_version),
            ("Address", node.facts.public_address),
            ("Signalling", node.facts.signal_address),
            ("Launchers", _launchers(node.facts)),
            ("Labels", mapping(node.facts.labels)),
            ("Sessions", str(node.session_count)),
            ("Connected", moment(node.connected_time)),
            ("Last seen", moment(node.last_seen_time)),
            ("Drain deadline", moment(node.drain_time)),
            ("Identity", _identity(node.identity)),
            *(("Notice", f"{notice.reason}: {notice.message}") for notice in node.notices),
            *(("Left alone", _back_off(each)) for each in node.back_offs),
            *(("Note", note) for note in node.facts.notes),
        ]
    )
    rows = [
        (
            device.uuid,
            field_name(device, "kind"),
            device.name,
            _memory(device),
            f"{device.utilization_percent}%" if device.HasField("utilization_percent") else "-",
            f"{device.slots_leased}/{device.slots}",
            field_name(device, "health"),
            _why(device),
        )
        for device in node.devices
    ]
    lines += ["", *table(("DEVICE", "KIND", "NAME", "FREE MEMORY", "BUSY", "SLOTS", "HEALTH", "WHY"), rows)]
    events = [
        (moment(event.time), device.uuid, event.reason, event.message)
        for device in node.devices
        for event in device.events
    ]
    return [*lines, "", *table(("TIME", "DEVICE", "EVENT", "WHAT"), sorted(events))] if events else lines


def _why(device: node_pb2.Device) -> str:
    """Return why a device is unhealthy, or excluded from placement."""
    reasons = [f"{why.reason} {why.message}" for why in device.health_reasons]
    return "; ".join(text for text in (*reasons, _quarantine(device), device.note) if text)


def _quarantine(device: node_pb2.Device) -> str:
    """Return that a device is in quarantine, why and until when; ``quarantine`` is all that an older server has."""
    if not device.HasField("quarantine_status"):
        return f"QUARANTINED {device.quarantine}" if device.quarantine else ""
    status = device.quarantine_status
    return f"QUARANTINED until {moment(status.until_time)}: {status.reason}: {status.message}"


def version_rows(versions: Sequence[application_pb2.Version], now_s: float) -> list[str]:
    """Return versions, one per line."""
    rows = [
        (
            version.version,
            traits_of(version).name,
            ", ".join(argument.name for argument in version.arguments) or "-",
            age(version.created_time, now_s),
            version.description,
        )
        for version in versions
    ]
    return table(("VERSION", "LAUNCHER", "ARGUMENTS", "AGE", "DESCRIPTION"), rows, empty="No versions.")


def token_table(tokens: Iterable[token_pb2.Token], now_s: float) -> list[str]:
    """Return tokens, one per line."""
    rows = [
        (
            token.token_id,
            field_name(token, "role"),
            token.subject,
            _token_state(token, now_s),
            age(token.created_time, now_s),
            moment(token.expire_time) or "never",
            token.description,
        )
        for token in tokens
    ]
    return table(("TOKEN", "ROLE", "SUBJECT", "STATE", "AGE", "EXPIRES", "DESCRIPTION"), rows, empty="No tokens.")


def viewer_table(viewers: Iterable[viewer_pb2.Viewer], now_s: float) -> list[str]:
    """Return viewers, one per line."""
    rows = [
        (
            viewer.viewer_id,
            field_name(viewer, "state") + (" (removed)" if viewer.HasField("removed_time") else ""),
            viewer.subject,
            age(viewer.connected_time, now_s),
        )
        for viewer in viewers
    ]
    return table(("VIEWER", "STATE", "SUBJECT", "AGE"), rows, empty="No viewers.")


def value_name(session: session_pb2.Session, field: str) -> str:
    """Return the name of a session's value; empty without one, and its text or number if it is of a later release."""
    return session.unknown_values.get(field) or (field_name(session, field) if getattr(session, field) else "")


def age(timestamp: Timestamp, now_s: float) -> str:
    """Return how long ago a moment was; ``-`` if it is unset."""
    return show_duration(now_s - _unix_seconds(timestamp)) if timestamp.ByteSize() else "-"


def moment(timestamp: Timestamp) -> str:
    """Return a moment in RFC 3339, UTC, whole seconds; empty if it is unset."""
    return timestamp.ToDatetime().isoformat(timespec="seconds") + "Z" if timestamp.ByteSize() else ""


def mapping(texts: Any) -> str:
    """Return a mapping such as labels on one line, by name."""
    return ", ".join(f"{key}={value}" for key, value in sorted(texts.items()))


def _unix_seconds(timestamp: Timestamp) -> float:
    from footlights.protocol import times  # not at the top: protobuf would slow down `footlights --help`

    return times.unix_seconds(timestamp)


def _length(session: Any, field: str) -> str:
    return show_duration(getattr(session, field).seconds) if session.HasField(field) else ""


def _reasons(waits: session_pb2.Session.Queue | session_pb2.ExplainPlacementResponse) -> str:
    """Return why something waits; ``reasons`` is all that a server of the release before has."""
    return "; ".join([f"{why.reason}: {why.message}" for why in waits.wait_reasons] or waits.reasons)


def _estimate(waits: session_pb2.Session.Queue | session_pb2.ExplainPlacementResponse) -> str:
    """Return for about how long it waits, after a comma; ``eta`` is all that a server of the release before has."""
    for name in ("estimated_wait_duration", "eta"):
        if waits.HasField(name):
            return f", about {_length(waits, name)}"
    return ""


def _scheduling(wanted: node_pb2.Node.Scheduling) -> str:
    """Return what is wanted of a node, in one word; ``-`` if it takes sessions."""
    return "draining" if wanted.draining else "cordoned" if wanted.cordoned else "-"


def _launchers(facts: node_pb2.NodeFacts) -> str:
    isolation = {each.name: field_name(each, "isolation") for each in facts.launcher_facts}
    return ", ".join(f"{name} (isolation {isolation[name]})" if name in isolation else name for name in facts.launchers)


def _scheduling_details(wanted: node_pb2.Node.Scheduling) -> str:
    """Return the same with who wants it, since when and why; empty if it takes sessions."""
    if not wanted.cordoned:
        return ""
    who = f" by {wanted.subject}" if wanted.subject else ""
    since = f" since {moment(wanted.since_time)}" if wanted.HasField("since_time") else ""
    reason = wanted.reason if wanted.reason not in ("", "OPERATOR") else ""
    why = ": ".join(text for text in (reason, wanted.message) if text)
    return f"{_scheduling(wanted)}{who}{since}" + (f": {why}" if why else "")


def _device_counts(devices: Iterable[node_pb2.Device]) -> str:
    counts: dict[str, int] = {}
    for device in devices:
        label = device.name or field_name(device, "kind")
        counts[label] = counts.get(label, 0) + 1
    return ", ".join(f"{count} x {label}" for label, count in counts.items()) or "-"


def _memory(device: node_pb2.Device) -> str:
    if not device.HasField("memory_total_bytes"):
        return "-"
    free = f"{device.memory_free_bytes / 2**30:.1f}" if device.HasField("memory_free_bytes") else "?"
    kept = f", {device.memory_reserved_bytes / 2**30:.1f} kept" if device.memory_reserved_bytes else ""
    return f"{free}/{device.memory_total_bytes / 2**30:.1f} GiB{kept}"


def _token_state(token: token_pb2.Token, now_s: float) -> str:
    if token.HasField("revoked_time"):
        return "REVOKED"
    expired = token.HasField("expire_time") and _unix_seconds(token.expire_time) <= now_s
    return "EXPIRED" if expired else "VALID"
