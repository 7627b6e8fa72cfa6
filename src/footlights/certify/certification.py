"""The trials of a certification, and what is made of them."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from footlights.certify.findings import Finding, Grade, passed, skipped
from footlights.certify.node import TrialNode
from footlights.certify.trial import until
from footlights.certify.viewing import try_stranger, try_viewers
from footlights.errors import InvalidArgument
from footlights.launch.launchers import traits_of
from footlights.launch.probes.notice import NoticeOutcome, SessionNotice, send_notice
from footlights.launch.recipe.recipe import validate
from footlights.launch.recipe.stages import parse_root, resolve_stage, unopened, unopened_by

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from footlights.agent.config import AgentConfig
    from footlights.certify.trial import Trial
    from footlights.v1.application_pb2 import Version

_QUIET: Final = 64 << 10
"""Bytes a second that an application may write for good."""
_FLOOD: Final = 1 << 20
_OF_NO_REASON: Final = ("", "EXITED_EARLY", "START_TIMEOUT")
_MISSING: Final = "footlights-no-such-stage.usd"
_VIEWERS: Final = 2
_NOTICED_S: Final = 1.5
"""Within what time the agent sees that an application has ended."""
_FOREGROUND: Final = "Stay in the foreground: no daemon, no double fork; exec the last command of a script."
_FIXES: Final = MappingProxyType(
    {
        "START_TIMEOUT": "Answer the readiness check and listen on {signal_port}; or set limits.start_timeout.",
        "PORT_TAKEN": "Listen on the ports that are given, and on no other; end what else has them.",
        "COMMAND_NOT_FOUND": "Install the command on the node, or correct the version's command.",
    }
)
"""What to do about a start that failed, by its reason."""
_SAY_HOW: Final = "Say in the version's stage_delivery how it is given its stage, and give it so."
_SAY_WHY: Final = 'End, and print last: FOOTLIGHTS_FAILURE: {"reason": "STAGE_NOT_FOUND", "message": "..."}'


@dataclass(frozen=True, slots=True)
class Certification:
    """What is certified, and with what."""

    version: Version
    arguments: Mapping[str, object] = field(default_factory=dict)
    stage: str = ""
    """Empty: the version's default."""
    settle_s: float = 3.0
    """How long an application is watched while it is ready and nothing is asked of it."""


async def certify(wanted: Certification, config: AgentConfig) -> AsyncIterator[Finding]:
    """Yield the lines as they are known; the launches are gone when the last one is.

    Raises FailedPrecondition or InvalidArgument where this machine cannot launch the version.
    """
    version = wanted.version
    try:
        validate(version)
        stage = resolve_stage(version, wanted.stage)
    except InvalidArgument as error:
        yield Finding("RECIPE", Grade.FAIL, str(error), "Correct the file: footlights apps apply refuses it too.")
        return
    yield passed("RECIPE", f"version {version.version} is valid, for the {traits_of(version).name} launcher")
    if traits_of(version).answers is not None:
        yield skipped("COLD_START", "a simulated application starts nothing")
        return
    async with TrialNode.opened(config) as node:
        async for finding in _first(node, wanted, stage):
            yield finding
            if finding.check == "COLD_START" and finding.verdict is Grade.FAIL:
                return
        yield await _warm(node, wanted, stage)
        yield await _refused_stage(node, wanted)


async def _first(node: TrialNode, wanted: Certification, stage: str) -> AsyncIterator[Finding]:
    async with node.trial(wanted.version, wanted.arguments, stage) as trial:
        started = await node.started(trial)
        yield _started("COLD_START", trial, started)
        if not started:
            return
        if stage and (why := unopened(unopened_by(wanted.version, stage), stage)):
            yield Finding("STAGE_OPENED", Grade.WARN, why, _SAY_HOW)
        elif stage:
            yield passed("STAGE_OPENED", f"it became ready with {stage}")
        quiet_from = trial.output_bytes
        await asyncio.sleep(wanted.settle_s)
        yield _output(trial, (trial.output_bytes - quiet_from) / wanted.settle_s)
        yield _ports(trial)
        yield await _viewers(trial)
        yield await _secret(trial)
        yield _presence(trial)
        yield await _notice(trial)
        await until(lambda: trial.record.state.final, _NOTICED_S)
        alive = _alive(trial)
        yield alive
        if alive.verdict is Grade.PASS:
            yield _stop(trial, await node.stop(trial))
        yield _process_tree(trial)
        yield await _left_over(node, trial)


async def _warm(node: TrialNode, wanted: Certification, stage: str) -> Finding:
    async with node.trial(wanted.version, wanted.arguments, stage) as trial:
        return _started("WARM_START", trial, await node.started(trial))


async def _refused_stage(node: TrialNode, wanted: Certification) -> Finding:
    """Try a stage that is allowed and does not exist: what a user meets who mistypes one."""
    roots = [root for root in wanted.version.allowed_stage_roots if root.startswith("/")]
    if not roots:
        return skipped("STAGE_REFUSED", "the version allows no directory of this node to be opened")
    stage = f"{parse_root(roots[0]).text.rstrip('/')}/{_MISSING}"
    if unopened_by(wanted.version, stage):
        return skipped("STAGE_REFUSED", "the application opens no stage by itself")
    async with node.trial(wanted.version, wanted.arguments, stage) as trial:
        started = await node.started(trial)
        report = trial.report
    if started:
        text = f"it became ready with {stage}, which does not exist: its users see an empty scene"
    elif report.reason in _OF_NO_REASON:
        text = f"with a stage that does not exist it failed without saying why: {report.message}"
    else:
        return passed("STAGE_REFUSED", f"a stage that does not exist ends it with {report.reason}: {report.message}")
    return Finding("STAGE_REFUSED", Grade.WARN, text, _SAY_WHY)


def _started(check: str, trial: Trial, started: bool) -> Finding:
    record, report = trial.record, trial.report
    if started:
        text = (
            f"ready after {record.starting_for:.1f} s of {record.start_timeout:g} s, on {record.assignment.device_uuid}"
        )
        return passed(check, text)
    said = report.message or record.message or "it did not become ready"
    tail = " | ".join(list(report.log_tail)[-3:])
    early = report.reason == "EXITED_EARLY" and report.exit_code == 0
    fix = _FOREGROUND if early else _FIXES.get(report.reason, "Look at its output, and at the recipe.")
    text = f"{report.reason or 'NOT_READY'}: {said}" + (f" Its output ends: {tail}" if tail else "")
    return Finding(check, Grade.FAIL, text, fix)


def _output(trial: Trial, rate: float) -> Finding:
    shown = f"{rate / 1024:.1f} KiB/s while nothing happens"
    if trial.output_lost or rate > _FLOOD:
        text = f"{shown}: more than is kept, so that what matters is lost"
        return Finding("OUTPUT", Grade.FAIL, text, "Write less: a line when something happens, none for each frame.")
    if rate > _QUIET:
        return Finding("OUTPUT", Grade.WARN, shown, "Write less: only the newest output is kept.")
    return passed("OUTPUT", shown)


def _ports(trial: Trial) -> Finding:
    if not trial.sockets_known:
        return skipped("PORTS", "whose sockets are whose is not known: run this as root")
    others = ", ".join(str(each) for each in trial.unexpected)
    if not others:
        return passed("PORTS", f"it listens on {', '.join(sorted(map(str, trial.sockets))) or 'nothing'} alone")
    fix = "Listen on {signal_port}, {media_port} and {http_port} only: a second session on the node has the others too."
    verdict = Grade.WARN if trial.own_network else Grade.FAIL
    return Finding("PORTS", verdict, f"it also listens on {others}", fix)


def _process_tree(trial: Trial) -> Finding:
    if trial.main is None:
        return skipped("PROCESS_TREE", "its processes cannot be seen here")
    if trial.daemonised:
        text = "the process that was started ended with status 0 while others of its tree ran, and the session with it"
        return Finding("PROCESS_TREE", Grade.FAIL, text, _FOREGROUND)
    return passed("PROCESS_TREE", "the process that was started is the one that serves, or waits for it")


async def _viewers(trial: Trial) -> Finding:
    if not trial.viewer_path:
        return skipped(
            "VIEWERS", "the version names no signaling.whep_path or websocket_path: viewers dial it directly"
        )
    first, *more = await try_viewers(trial, _VIEWERS)
    if first:
        return Finding("VIEWERS", Grade.FAIL, f"a viewer was not let in: {first}", "Answer on the path of signaling.")
    if why := next(filter(None, more), ""):
        text = f"a second viewer was not let in: {why}"
        return Finding("VIEWERS", Grade.WARN, text, "If one viewer is all it can have, answer 409 and say so.")
    return passed("VIEWERS", f"{_VIEWERS} viewers were let in at once")


async def _secret(trial: Trial) -> Finding:
    if not trial.viewer_path:
        return skipped("SECRET", "there is no path to try")
    if why := await try_stranger(trial):
        return Finding(
            "SECRET",
            Grade.FAIL,
            f"whoever reaches its signalling port is let in: {why}",
            "Check Footlights-Launch-Proof; or leave out signaling.checks_secret, and the agent does.",
        )
    who = "the application" if trial.record.assignment.version.signaling.checks_secret else "the agent in front of it"
    return passed("SECRET", f"{who} refuses requests without the launch's secret")


def _presence(trial: Trial) -> Finding:
    if trial.record.viewers is None:
        return Finding(
            "PRESENCE",
            Grade.WARN,
            "how many viewers it has is not known: it is never ended for being idle",
            'Answer GET /v1/streaming/status with {"viewers": N, "last_input_seconds_ago": S}.',
        )
    return passed("PRESENCE", "it says how many viewers it has")


async def _notice(trial: Trial) -> Finding:
    assert trial.plan is not None, "a launch that was ready has a plan"
    outcome = await send_notice(trial.plan, SessionNotice("DRAIN", "A trial of a notice.", 60.0), secret=trial.secret)
    if outcome is NoticeOutcome.DELIVERED:
        await send_notice(trial.plan, SessionNotice(), secret=trial.secret)
        return passed("NOTICE", "it takes notices for its viewers")
    said = "does not offer notices" if outcome is NoticeOutcome.UNSUPPORTED else "did not answer a notice as it should"
    fix = "Take POST /v1/streaming/notice and show it: viewers then know before a drain or a limit ends their session."
    return Finding("NOTICE", Grade.WARN, f"it {said}", fix)


def _alive(trial: Trial) -> Finding:
    if trial.record.state.final:
        report = trial.report
        said = " ".join(filter(None, (report.reason, report.message))) or f"with status {report.exit_code}"
        text = f"it ended while it was tried: {said}"
        return Finding("STAYS_READY", Grade.FAIL, text, "Go on after a viewer has left, and after odd requests.")
    return passed("STAYS_READY", "it goes on after its viewers have left")


def _stop(trial: Trial, took: float | None) -> Finding:
    record, report = trial.record, trial.report
    grace = f"the grace of {record.grace:g} s"
    if took is None:
        return Finding("STOP", Grade.FAIL, f"it has not ended: {record.message}", "End on SIGTERM.")
    if record.killed_at is not None or took >= record.grace or report.exit_code == -signal.SIGKILL:
        text = f"it did not end within {grace} and was killed"
        fix = "End on SIGTERM, with all children; or set limits.stop_grace_period to what it takes."
        return Finding("STOP", Grade.FAIL, text, fix)
    return passed("STOP", f"it ended {took:.1f} s after SIGTERM, within {grace}, with status {report.exit_code}")


async def _left_over(node: TrialNode, trial: Trial) -> Finding:
    pids = await node.left(trial)
    if pids:
        text = f"processes are left: {', '.join(map(str, sorted(pids)))}"
        return Finding("LEFT_OVER", Grade.FAIL, text, "End all children with the application.")
    return passed("LEFT_OVER", "no process and no listener is left")
