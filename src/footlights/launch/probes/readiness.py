"""Asks a running launch whether it can be connected to, and who is there. Raises nothing: no answer is not ready."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from http import HTTPStatus

from footlights.launch.launcher import LaunchPlan, LogPart
from footlights.launch.launchers import traits_of
from footlights.launch.probes import loopback
from footlights.launch.probes.offer import NoOffer, why_no_offer
from footlights.launch.process import ownership
from footlights.redaction import redact
from footlights.v1.application_pb2 import Presence as PresenceRecipe
from footlights.v1.application_pb2 import Readiness

READY_PATH = "/v1/streaming/ready"
STATUS_PATH = "/v1/streaming/status"
PROBE_TIMEOUT_S = 3.0
_MAX_LOG_PARTS = 16
_REFUSED_WITHIN_S = 0.3
_MOST_WORDS = 200
_OK = 200
_REACHED_BY_AGENT = frozenset({loopback.HOST, "0.0.0.0", "::"})  # noqa: S104 - compared with
_STATUSES = frozenset(HTTPStatus)

ASKED_BY_HTTP = (Readiness.CHECK_UNSPECIFIED, Readiness.HTTP, Readiness.OFFER)
"""The checks that ask an application by HTTP."""
_OF_THE_TIME = 0.8

LogReader = Callable[[str], Awaitable[LogPart]]
"""Reads a launch's output from a cursor on; "" is its beginning."""


@dataclass(frozen=True, slots=True)
class ViewerPresence:
    """Who is connected. None is unknown, which is not zero."""

    viewers: int | None
    idle_s: float | None
    """Seconds since the last input, where the application says it."""
    unanswered: str = ""
    """What it was asked and did not answer; empty where it answers."""
    said: str = ""
    """What it says of itself: the ``statusMessage`` of its answer."""
    by_visits: bool = False
    """Whether all that can be known is that somebody came: it reports no viewers, and they keep no connections."""


UNKNOWN = ViewerPresence(viewers=None, idle_s=None)


async def why_unready(
    plan: LaunchPlan,
    log_reader: LogReader,
    *,
    secret: str = "",
    pids: frozenset[int] = frozenset(),
    timeout_s: float = PROBE_TIMEOUT_S,
) -> str:
    """Make the version's readiness check once; return why the application cannot be connected to, empty where it can.

    Whatever the check is, something must listen on the signalling port: without that no viewer can connect.

    Args:
        plan: The launch.
        log_reader: Its output, for the check LOG.
        secret: The launch's.
        pids: Its processes, where they are known.
        timeout_s: How long it may take.
    """
    version = plan.version
    if answers := traits_of(version).answers:
        return "" if answers().is_ready(plan) else "its version says that it is not"
    what = _question(plan)
    try:
        async with asyncio.timeout(timeout_s):
            match version.readiness.check:
                case Readiness.TCP:
                    problem = "" if await _accepts(plan, pids) else "the connection was closed at once"
                case Readiness.LOG:
                    problem = "" if await _logged(version.readiness.log_text, log_reader) else "not so yet"
                case _:
                    status, body = await _ask(plan, _ready_path(plan), secret)
                    problem = "" if status == _OK else answer_of(status, body, secret)
            if not problem and (unreachable := await _signalling(plan, pids)):
                return unreachable
            if not problem and version.readiness.check == Readiness.OFFER:
                # A little less than there is, so that what is said is what was waited for.
                # Some of it may be the application's own words.
                why = _shown(await why_no_offer(plan, timeout_s * _OF_THE_TIME, secret))
                return NoOffer(why) if why else ""
    except (OSError, ValueError, EOFError, TimeoutError) as error:
        problem = explained(error, timeout_s)
    return f"{what}: {problem}" if problem else ""


def explained(error: Exception, timeout_s: float) -> str:
    """Say what became of a request to an application that was not answered as it should."""
    match error:
        case TimeoutError():
            return f"no answer within {timeout_s:.3g} s"
        case ConnectionRefusedError():
            return "connection refused"
        case EOFError() | ConnectionResetError():
            return "the connection was closed without an answer"
        case OSError():
            return error.strerror or type(error).__name__
    return _shown(str(error))


async def presence(
    plan: LaunchPlan,
    *,
    secret: str = "",
    pids: frozenset[int] = frozenset(),
    timeout_s: float = PROBE_TIMEOUT_S,
) -> ViewerPresence:
    """Ask who is connected: by the application's own word, else by counting connections to the signalling port.

    It says as well whether the application answers, also one that is not asked for its viewers.
    """
    source = plan.version.presence.source
    if answers := traits_of(plan.version).answers:
        viewers = None if source == PresenceRecipe.NONE else answers().viewers(plan)
        return ViewerPresence(viewers=viewers, idle_s=None)
    problem = said = ""
    if source in (PresenceRecipe.CONNECTIONS, PresenceRecipe.NONE):
        problem, said = await _heard(plan, secret, pids, timeout_s)
    else:
        asked = f"GET http://{loopback.HOST}:{plan.ports.http}{STATUS_PATH}"
        try:
            async with asyncio.timeout(timeout_s):
                status, body = await _ask(plan, STATUS_PATH, secret)
            if status == _OK:
                return _said(body)
        except TimeoutError as error:
            # It has the route, or hangs: its connections would say less.
            return replace(UNKNOWN, unanswered=f"{asked}: {explained(error, timeout_s)}")
        except (OSError, ValueError, EOFError) as error:
            if source == PresenceRecipe.HTTP:
                problem = f"{asked}: {explained(error, timeout_s)}"
            elif not isinstance(error, ValueError):
                problem, said = await _heard(plan, secret, pids, timeout_s)
    without = source != PresenceRecipe.CONNECTIONS and bool(problem)
    if without or source in (PresenceRecipe.HTTP, PresenceRecipe.NONE) or (plan.own_network and not pids):
        return replace(UNKNOWN, unanswered=problem, said=said)
    paths = plan.version.signaling
    if source != PresenceRecipe.CONNECTIONS and paths.whep_path and not paths.websocket_path:
        return replace(UNKNOWN, by_visits=True, said=said)
    inside = min(pids) if plan.own_network else None
    count = await asyncio.to_thread(ownership.connections, plan.ports.signal, inside)
    return ViewerPresence(viewers=count, idle_s=None, unanswered=problem, said=said)


async def _heard(plan: LaunchPlan, secret: str, pids: frozenset[int], timeout_s: float) -> tuple[str, str]:
    """Ask what the readiness check asks: any answer is one. Without a question it can be asked, it must listen.

    Return what was not answered, and what the application says of itself.
    """
    if plan.version.readiness.check in ASKED_BY_HTTP:
        try:
            async with asyncio.timeout(timeout_s):
                _, body = await _ask(plan, _ready_path(plan), secret)
        except (OSError, ValueError, EOFError, TimeoutError) as error:
            return f"{_question(plan)}: {explained(error, timeout_s)}", ""
        return "", _harmless(_member(body, ("statusMessage",)), secret)
    try:
        async with asyncio.timeout(timeout_s):
            return await _signalling(plan, pids), ""
    except (OSError, TimeoutError) as error:
        return f"its signalling port, TCP {plan.ports.signal}: {explained(error, timeout_s)}", ""


def _ready_path(plan: LaunchPlan) -> str:
    return plan.version.readiness.path or READY_PATH


def _question(plan: LaunchPlan) -> str:
    """What the readiness check asks, for a person."""
    readiness = plan.version.readiness
    match readiness.check:
        case Readiness.TCP:
            return f"connecting to {loopback.HOST}:{plan.ports.signal}"
        case Readiness.LOG:
            return f"a line of its output with {readiness.log_text!r}"
    return f"GET http://{loopback.HOST}:{plan.ports.http}{_ready_path(plan)}"


def answer_of(status: int, body: bytes, *secrets: str) -> str:
    """Say what an application answered, with its own words where it has some; ``secrets`` are not shown."""
    phrase = f"{status} {HTTPStatus(status).phrase}" if status in _STATUSES else f"{status}"
    words = _harmless(_words(body), *secrets)
    return f"{phrase}, {words!r}" if words else phrase


def _harmless(words: str, *secrets: str) -> str:
    """Return an application's words as people may read them."""
    for secret in filter(None, secrets):
        words = words.replace(secret, "[redacted]")
    return _shown(redact(words))


def _words(body: bytes) -> str:
    if words := _member(body, ("statusMessage", "errorMessage", "message", "detail", "error")):
        return words
    text = body.decode("utf-8", "replace").strip()
    return "" if text.startswith("<") or text in ("{}", "[]", "null") else text


def _member(body: bytes, names: tuple[str, ...]) -> str:
    """Return the first of these members of a JSON object that is a text; empty where none is."""
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(body.decode("utf-8", "replace"))
        for name in names:
            if isinstance(value, dict) and isinstance(value.get(name), str):
                return str(value[name])
    return ""


def _shown(text: str) -> str:
    plain = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return plain if len(plain) <= _MOST_WORDS else f"{plain[:_MOST_WORDS]}…"


async def _signalling(plan: LaunchPlan, pids: frozenset[int]) -> str:
    """Why viewers' signalling cannot reach the application; empty where it can. Whose the listener is, is not asked."""
    port = plan.ports.signal
    nothing = f"nothing listens on its signalling port, TCP {port}"
    if plan.own_network and not pids:
        return "" if await _accepts(plan, pids) else nothing
    hosts = await asyncio.to_thread(ownership.listening_hosts, port, min(pids) if plan.own_network else None)
    if plan.ports.splice and not plan.own_network and hosts and not hosts & _REACHED_BY_AGENT:
        return f"its signalling port, TCP {port}, is open at {', '.join(sorted(hosts))}, and not at {loopback.HOST}"
    return "" if hosts else nothing


async def _ask(plan: LaunchPlan, path: str, secret: str) -> tuple[int, bytes]:
    return await loopback.ask(plan.ports.http, path, secret=secret, source=traits_of(plan.version).asked_from)


def _said(body: bytes) -> ViewerPresence:
    """Read an application's own word; raises ValueError where it makes no sense."""
    try:
        value = json.loads(body)
    except RecursionError:
        raise ValueError("the status is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("the status is not an object")
    viewers, idle = value.get("viewers"), value.get("last_input_seconds_ago")
    if not isinstance(viewers, int) or isinstance(viewers, bool) or not 0 <= viewers < 2**31:
        raise ValueError(f"viewers is {viewers!r}")
    if isinstance(idle, bool) or not isinstance(idle, int | float) or not math.isfinite(idle) or idle < 0:
        idle = None
    return ViewerPresence(viewers=viewers, idle_s=None if idle is None else float(idle))


async def _accepts(plan: LaunchPlan, pids: frozenset[int]) -> bool:
    if plan.own_network and pids:
        return bool(await asyncio.to_thread(ownership.listening_hosts, plan.ports.signal, min(pids)))
    reader, writer = await loopback.connect(plan.ports.signal, traits_of(plan.version).asked_from)
    try:
        if not plan.own_network:
            return True
        # On the node the engine accepts, and closes at once where the application does not.
        async with asyncio.timeout(_REFUSED_WITHIN_S):
            return bool(await reader.read(1))
    except TimeoutError:
        return True
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _logged(text: str, log_reader: LogReader) -> bool:
    cursor = ""
    for _ in range(_MAX_LOG_PARTS):
        part = await log_reader(cursor)
        if any(text in line for line in part.lines):
            return True
        if not part.lines or part.cursor == cursor:
            return False
        cursor = part.cursor
    return False
