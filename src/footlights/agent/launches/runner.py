"""One launch: observe, decide, do, until its end is proved."""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from footlights.agent.devices.inventory import DevicesSilent
from footlights.agent.launches.journal import JournalError
from footlights.agent.launches.observer import Observer
from footlights.agent.launches.step import Do, LaunchEnding, Step, application_failure, decide, with_kill
from footlights.launch.launcher import Launcher, LaunchError, LaunchPlan, Phase, Status, node_error
from footlights.launch.launchers import traits_of
from footlights.launch.probes.stage import StageRefused
from footlights.launch.splice import Splice
from footlights.lifecycle import LaunchState, Stage
from footlights.linux import procfs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from footlights.agent.launches.observer import LaunchTools
    from footlights.agent.launches.record import Record
    from footlights.agent.v1.agent_pb2 import Relay

_POLL_S: Final = 0.25
"""How often a launch is looked at: an exit that the kernel does not announce is noticed at most this much later."""
_STEADY_S: Final = 1.0
"""The same where the kernel announces exits: a look costs a walk through all processes."""
_QUICK_S: Final = 0.03
_QUICK_FOR_S: Final = 0.5
_PROOF_LAST_S: Final = 2.0
_TAIL_LINES: Final = 20
_FAILURE_LINES: Final = 200
"""So far from its end an application may have said why it failed."""
_LOG_TIMEOUT_S: Final = 10.0
_LAUNCHER_TIMEOUT_S: Final = 30.0
_log = structlog.get_logger(__name__)


class Runner:
    """Starts one launch, and follows it to its end."""

    def __init__(self, record: Record, tools: LaunchTools) -> None:
        self.record = record
        self._tools = tools
        self._wake = asyncio.Event()
        self._seen = Observer(record, tools, self._wake.set)
        self._idle = False
        self._over = asyncio.Event()
        self._proof_delay = _POLL_S
        self._quick_until = 0.0
        self._driver_silent_since = math.inf
        self._unproved = ""
        """What could not be proved of its end, for its owner."""
        self._journal_error = ""
        self._splice: Splice | None = None
        self.observed = asyncio.Event()
        """Set once a restored launch has been looked at."""
        self._log = _log.bind(launch_id=record.launch_id, session_id=record.assignment.session_id)

    async def run(self) -> None:
        """Go on until the launch is over. Cancelling leaves the application alone."""
        supervise = self._tools.supervisor.supervise
        name = f"launch {self.record.launch_id}"
        work = asyncio.create_task(supervise(name, self._turn, every_s=_POLL_S, wake=self._wait_for_work))
        try:
            await self._over.wait()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            self.observed.set()
            self._seen.close()
            await self._close_splice()

    def end(self, ending: LaunchEnding) -> None:
        """End the launch this way; the first decision counts."""
        if self.record.decide(ending):
            self._wake.set()

    def take_relay(self, relay: Relay) -> None:
        """Have the application given its relay, now."""
        self._seen.take_relay(relay)
        self._wake.set()

    def wake(self) -> None:
        """Look again now: limits may have changed."""
        self._wake.set()

    async def status(self) -> Status:
        """Ask the launcher afresh; what is unknown is RUNNING as before."""
        await self._seen.look()
        return self._seen.status or Status(Phase.RUNNING, pids=self.record.pids)

    async def _turn(self) -> None:
        """Look, decide, and do one thing."""
        self._idle = False
        try:
            await self._look_and_do()
        except Exception:
            # The launch is tried again, with pauses: one that is given up would hold its slot indefinitely.
            self._seen.say("The agent met an error of its own; see its log.")
            self.observed.set()
            raise
        finally:
            if self.record.state.final:
                self._over.set()

    async def _look_and_do(self) -> None:
        self._wake.clear()
        await self._keep_splice()
        await self._seen.observe()
        if self.record.arrived and not self.record.ever_connected:
            await self._save()
            self.record.confirm_viewer()
            self._report()
        step = decide(self._seen.facts())
        if step.do is Do.WAIT:
            self._idle = True
            self.observed.set()
        else:
            await self._perform(step)

    async def _keep_splice(self) -> None:
        """Hold the door in front of an application that checks no secret, from before its start to its end."""
        record, plan = self.record, self.record.plan
        if self._splice is not None or plan is None or not plan.ports.splice or record.state.final:
            return
        source = traits_of(plan.version).asked_from
        splice = Splice(
            plan.ports,
            record.secret,
            self._tools.entrance_host,
            source=source,
            entered=record.note_visit,
            front_door=self._tools.front_door,
        )
        try:
            await splice.open()
        except OSError as error:
            # Of an earlier agent's launch the port may be free again soon.
            text = f"The agent cannot listen on TCP port {plan.ports.splice} in front of the application: {error}."
            self._seen.say(text)
            if record.state is not LaunchState.READY:
                self.end(LaunchEnding(LaunchState.FAILED, "PORT_TAKEN", text))
            return
        self._splice = splice

    async def _close_splice(self) -> None:
        if self._splice is not None:
            await self._splice.close()
            self._splice = None

    async def _wait_for_work(self, _longest_s: float) -> None:
        """Return when there is something to look at: at once after a step that was done."""
        if not self._idle:
            return
        now = self._tools.clock.now()
        served = self.record.state is LaunchState.READY and self.record.ending is None
        steady = _STEADY_S if served and self._seen.notices_exits else _POLL_S
        delay = _QUICK_S if now < self._quick_until else steady
        due = self._seen.next_look
        if due > now:
            delay = min(delay, due - now)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()
                # Woken, perhaps by an exit that the shim is still writing down: look more often for a moment.
                self._quick_until = self._tools.clock.now() + _QUICK_FOR_S

    # Doing

    async def _perform(self, step: Step) -> None:
        deeds: dict[Do, Callable[[LaunchEnding], Awaitable[None]]] = {
            Do.ADMIT: self._admit,
            Do.PREPARE: self._prepare,
            Do.START: self._start,
            Do.BECOME_READY: self._become_ready,
            Do.TAKE_UP: self._take_up,
            Do.END: self._adopt_ending,
            Do.STOP: self._stop,
            Do.KILL: self._kill,
            Do.PROVE: self._prove,
            Do.FINISH: self._finish,
        }
        await deeds[step.do](step.ending or LaunchEnding(LaunchState.EXITED))

    async def _admit(self, _: LaunchEnding) -> None:
        try:
            self.record.admit(await self._tools.admission.admit(self.record))
        except LaunchError as error:
            await self._finish(_launch_error(error))
        except Exception as error:
            self._log.exception("admission_failed")
            text = f"The agent met an error of its own: {error or type(error).__name__}; see its log."
            await self._finish(LaunchEnding(LaunchState.REJECTED, "AGENT_ERROR", text))

    async def _prepare(self, _: LaunchEnding) -> None:
        plan, launcher = self._ready_to_launch()
        pulls = traits_of(plan.version).pulls
        if pulls and not await self._must_save():
            return
        timeout_s = self._tools.pull_timeout_s if pulls else self.record.start_timeout
        self.record.begin_to_prepare(plan.version.container.image if pulls else "", timeout_s)
        if pulls:
            self._report()
        preparing = asyncio.ensure_future(launcher.prepare(plan))
        if not await self._unless_ended(preparing):
            return
        try:
            preparing.result()
        except LaunchError as error:
            await self._finish(_launch_error(error))
        except Exception as error:
            await self._finish(self._unexpected(error))
        else:
            self.record.prepare()

    async def _start(self, _: LaunchEnding) -> None:
        plan, launcher = self._ready_to_launch()
        self.record.begin()
        if not await self._must_save():
            return
        self._report()
        secrets = self.record.session_file()
        try:
            # Not cut short by a wish to end it: the state of a half-done start could not be known.
            async with asyncio.timeout(max(1.0, self.record.start_timeout - self.record.starting_for)):
                await launcher.start(plan, secrets)
        except LaunchError as error:
            self.end(_launch_error(error))
        except TimeoutError:
            text = f"The launcher did not start the application within {self.record.start_timeout:g} s."
            self.end(LaunchEnding(LaunchState.FAILED, "START_TIMEOUT", text))
        except Exception as error:
            self.end(self._unexpected(error))
        else:
            self.record.mark(Stage.PROCESS_UP)
            self._log.info("application_started", signal_port=plan.ports.signal, device=plan.device_uuid)
            self._report()

    async def _become_ready(self, _: LaunchEnding) -> None:
        # Journalled before it is reported: the next agent must not report that it is still starting.
        self.record.mark(Stage.APPLICATION_READY)
        await self._save()
        self.record.move(LaunchState.READY)
        self._seen.became_ready()
        self._report()
        self._log.info("application_ready", starting_for=round(self.record.starting_for, 3))

    async def _take_up(self, _: LaunchEnding) -> None:
        plan, _launcher = self._ready_to_launch()
        stage = self.record.assignment.usd_stage_uri
        opening = asyncio.ensure_future(self._tools.probes.hand_over(plan, stage, self.record.secret))
        if not await self._unless_ended(opening, math.inf):
            return
        try:
            problem = opening.result()
        except StageRefused as error:
            text = f"The application does not take its stage: {error}."
            self.end(LaunchEnding(LaunchState.FAILED, "STAGE_REFUSED", text))
            return
        if problem:
            text = f"An application that was started ahead did not take up the session: {problem}."
            self.end(LaunchEnding(LaunchState.FAILED, "HAND_OVER_FAILED", text))
            return
        self.record.take_up()
        # Journalled before it is reported: the next agent must not have it taken up again.
        await self._save()
        self._report()
        self._log.info("session_taken_up")

    async def _adopt_ending(self, ending: LaunchEnding) -> None:
        self.record.decide(ending)

    async def _stop(self, _: LaunchEnding) -> None:
        self.record.ask_to_stop()
        self._enter_stopping()
        await self._save()
        await self._ask_to_stop(kill=False)

    async def _kill(self, _: LaunchEnding) -> None:
        self.record.ask_to_kill()
        self._seen.say("The application outlives its grace period; it is being killed.")
        await self._ask_to_stop(kill=True)

    async def _ask_to_stop(self, *, kill: bool) -> None:
        plan, launcher = self._ready_to_launch()
        try:
            async with asyncio.timeout(_LAUNCHER_TIMEOUT_S):
                await launcher.stop(plan, kill=kill)
        except Exception as error:
            self._seen.say(f"The launcher cannot end the application: {error or type(error).__name__}.")

    async def _prove(self, ending: LaunchEnding) -> None:
        """Finish where the end is proved; otherwise say what is missing, and try again later."""
        self.record.decide(ending)
        if self._seen.status is not None and self._seen.status.phase is Phase.UNKNOWN:
            # What an agent that died was about to start may be on its way still: without traces, but with our mark.
            await self._ask_to_stop(kill=True)
        missing = await self._missing_proof()
        if not missing:
            await self._finish(replace(ending, message=f"{ending.message} {self._unproved}".strip()))
            return
        self._enter_stopping()
        self._seen.say(missing)
        self.observed.set()
        await asyncio.sleep(self._proof_delay)
        self._proof_delay = min(_PROOF_LAST_S, self._proof_delay * 1.5)

    async def _missing_proof(self) -> str:
        plan = self.record.plan
        if plan is None:
            return ""
        pids = frozenset(self.record.former_pids)
        left = await self._tools.probes.left_over(plan, pids)
        if left:
            return f"The application has exited, but {left}."
        if not pids or not self._seen.on_gpu:
            return ""
        self._driver_silent_since = min(self._driver_silent_since, self._tools.clock.now())
        try:
            reading = await self._tools.devices.read_one(plan.device_uuid)
        except DevicesSilent as error:
            # Nobody is given the device while its driver does not answer, so nothing is lost by not knowing.
            if self._tools.clock.now() - self._driver_silent_since >= self._tools.driver_timeout_s:
                self._log.warning("end_without_driver", problem=str(error), device=plan.device_uuid)
                self._unproved = f"Whether its device is free of it is not known: {error}."
                return ""
            return f"The application has exited; whether it still holds its device is unknown: {error}."
        self._driver_silent_since = math.inf
        listed = self._tools.devices.lists(reading, pids) if reading else frozenset()
        # The tree is gone, so a pid of it that lives belongs to another process by now.
        still = sorted(pid for pid in listed if not procfs.read_stat(pid))
        if still:
            return f"The application has exited, but the driver still lists its pid {still[0]} on the device."
        return ""

    async def _finish(self, ending: LaunchEnding) -> None:
        record, plan, launcher = self.record, self.record.plan, self._seen.launcher
        exit_code: int | None = None
        tail: tuple[str, ...] = ()
        if record.begun and plan is not None and launcher is not None:
            status = self._seen.status or Status(Phase.UNKNOWN)
            exit_code = status.exit_code
            output = await self._tail(launcher, plan)
            ending, tail = application_failure(output, ending), output[-_TAIL_LINES:]
            if (stopping_s := record.stopping_for) is not None:
                ending = with_kill(
                    ending,
                    grace_s=record.grace,
                    ended_after_s=stopping_s,
                    killed=status.killed,
                    exit_code=exit_code,
                )
        report = record.conclude(ending, exit_code, tail)
        saved = await self._save()
        await self._close_splice()
        self._tools.ports.release(record.launch_id)
        self._report()
        state = record.state.value
        self._log.info("launch_ended", state=state, reason=report.reason, exit_code=exit_code, message=report.message)
        if saved:
            # Only now: until the end is on disk, the launcher's traces are the only witness of the exit status.
            await self.discard()

    async def discard(self) -> str:
        """Remove what is left of an ended launch; return why that failed, empty where it is gone."""
        record, plan, launcher = self.record, self.record.plan, self._seen.launcher
        if record.discarded or not record.begun or plan is None:
            return ""
        if launcher is None:
            return f"the agent has no launcher {traits_of(plan.version).name} any more: enable it again"
        try:
            async with asyncio.timeout(_LAUNCHER_TIMEOUT_S):
                await launcher.discard(plan)
        except Exception as error:
            self._log.warning("discard_failed", error=str(error))
            return str(error) or type(error).__name__
        record.mark_discarded()
        return ""

    async def _tail(self, launcher: Launcher, plan: LaunchPlan) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(_LOG_TIMEOUT_S):
                return (await launcher.log(plan, tail_lines=_FAILURE_LINES)).lines
        except Exception as error:
            self._log.warning("log_unreadable", error=str(error))
            return ()

    async def _unless_ended(self, work: asyncio.Future[Any], longest_s: float | None = None) -> bool:
        """Wait for ``work``, at most until the launch is to end or the time for it is over; then give it up.

        ``longest_s`` is that time where it is not the one for preparing.
        """
        while not work.done():
            left = self.record.preparation_left if longest_s is None else longest_s
            if self.record.ending is not None or left <= 0:
                work.cancel()
                await asyncio.wait({work}, timeout=_LAUNCHER_TIMEOUT_S)
                return False
            self._wake.clear()
            woken = asyncio.create_task(self._wake.wait())
            try:
                waiting: set[asyncio.Future[Any]] = {work, woken}
                await asyncio.wait(
                    waiting, timeout=None if left == math.inf else left, return_when=asyncio.FIRST_COMPLETED
                )
            except asyncio.CancelledError:
                work.cancel()
                raise
            finally:
                woken.cancel()
        return True

    def _ready_to_launch(self) -> tuple[LaunchPlan, Launcher]:
        plan, launcher = self.record.plan, self._seen.launcher
        if plan is None or launcher is None:
            raise RuntimeError(f"launch {self.record.launch_id} was not admitted")
        return plan, launcher

    def _enter_stopping(self) -> None:
        if self.record.state is not LaunchState.STOPPING:
            self.record.move(LaunchState.STOPPING)
            self._report()

    def _unexpected(self, error: Exception) -> LaunchEnding:
        self._log.error("start_failed", exc_info=error)
        lacking = node_error(error.errno, f"{error}.") if isinstance(error, OSError) else None
        if lacking is not None:
            return _launch_error(lacking)
        text = f"The launcher failed to start the application: {error or type(error).__name__}."
        return LaunchEnding(LaunchState.FAILED, "START_FAILED", text)

    async def _must_save(self) -> bool:
        """Put the launch on disk before it is acted on; where that fails, refuse it."""
        if await self._save():
            return True
        self.record.take_back()
        text = f"Nothing may be started on the node: {self._journal_error}. Look at the disk of its data directory."
        await self._finish(LaunchEnding(LaunchState.REJECTED, "JOURNAL_UNAVAILABLE", text))
        return False

    async def _save(self) -> bool:
        if self.record.plan is None:
            return False
        entry = self.record.entry()
        try:
            await asyncio.to_thread(self._tools.journal.write, entry)
        except JournalError as error:
            self._journal_error = str(error)
            self._log.error("journal_failed", error=self._journal_error)
            return False
        return True

    def _report(self) -> None:
        self._tools.reports.changed(self.record.launch_id)


def _launch_error(error: LaunchError) -> LaunchEnding:
    state = LaunchState.REJECTED if error.rejected else LaunchState.FAILED
    return LaunchEnding(state, error.reason, error.message)
