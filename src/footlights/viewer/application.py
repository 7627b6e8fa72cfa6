"""The process: three ports, two threads, one event loop."""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiohttp import web

from footlights.viewer import access
from footlights.viewer.failure import ExitCode, FailureReason, ViewerFailure
from footlights.viewer.health import HealthEndpoint
from footlights.viewer.render.render_loop import RenderLoop
from footlights.viewer.scene.roots import StageRoots
from footlights.viewer.stream.whep import WhepEndpoint

if TYPE_CHECKING:
    from footlights.viewer.options import ViewerOptions

log = logging.getLogger("footlights.viewer")

CLOSE_TIMEOUT = 0.5  # seconds to close the viewers' connections

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound


class PortUnavailable(Exception):
    """Listening on a port failed. The message names it."""


async def run(options: ViewerOptions) -> None:
    """Stream until SIGTERM or SIGINT. Raises PortUnavailable, ViewerFailure."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end(failure: ViewerFailure | None = None) -> None:
        if not ended.done():
            ended.set_exception(failure) if failure else ended.set_result(None)

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, end)

    session = _session_file()
    options, check = (
        replace(options, usd_stage_uri=session.usd_stage_uri or options.usd_stage_uri),
        access.require(session.secret),
    )
    first_frame = asyncio.Event()
    render = RenderLoop(
        options,
        StageRoots.of(session.stage_roots),
        on_ready=lambda: _call(loop, first_frame.set),
        on_failure=lambda failure: _call(loop, end, failure),
    )
    health, whep = HealthEndpoint(render.progress, check), WhepEndpoint(check)
    runners: list[web.AppRunner] = []
    viewers: Any = None
    port: Any = None
    try:
        # The agent always connects to 127.0.0.1.
        local = {options.bind} if options.bind in WILDCARDS else {options.bind, "127.0.0.1"}
        await _listen(runners, health.application(), local, options.http_port, "http")
        await _listen(runners, whep.application(), {options.bind}, options.signal_port, "signal")
        # One thing after the other: usd-core and PyAV, imported by two threads at once, can deadlock
        # (the interpreter's lock against the dynamic loader's). The event loop goes on meanwhile.
        viewers_module = await asyncio.to_thread(importlib.import_module, "footlights.viewer.stream.viewers")
        mediaport = importlib.import_module("footlights.viewer.stream.media_port")
        try:
            port = await mediaport.MediaPort.open(options.public_address, options.media_port)
        except mediaport.PortTaken as error:
            raise PortUnavailable(str(error)) from error
        except OSError as error:
            raise PortUnavailable(f"--public-address {options.public_address} has no address: {error}") from error
        log.info("%s", _drawn_by(options))
        render.start()
        if not await _either(first_frame, ended):
            viewers = viewers_module.Viewers(options, port, render)
            viewers.start()
            viewers.watch_over(end)
            whep.open(viewers)
            health.ready(viewers.status, viewers.notify)
            log.info(
                "ready: signal %d/tcp, media %d/udp at %s, http %d/tcp",
                options.signal_port, options.media_port, port.public_host, options.http_port,
            )  # fmt: skip
        await ended
    finally:
        log.info("ending")
        if viewers is not None:
            await viewers.close(CLOSE_TIMEOUT)
        render.stop(timeout=0.2)
        if port is not None:
            port.close()
        for runner in runners:
            await runner.cleanup()


def _session_file() -> access.SessionFile:
    try:
        return access.read_session_file()
    except (OSError, ValueError) as error:
        raise ViewerFailure(FailureReason.INTERNAL, f"the session file cannot be read: {error}") from error


async def _listen(runners: list[web.AppRunner], app: web.Application, hosts: set[str], port: int, what: str) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    runners.append(runner)
    await runner.setup()
    for host in sorted(hosts):
        try:
            await web.TCPSite(runner, host, port, reuse_address=True).start()
        except OSError as error:
            raise PortUnavailable(f"cannot listen on TCP port {port} ({what}) at {host}: {error.strerror}") from error


def _drawn_by(options: ViewerOptions) -> str:
    if options.renderer == "egl":
        return f"drawing with EGL, on {options.device_uuid or 'the first device'} if it is there"
    unused = f"; {options.device_uuid} is held but not used" if options.device_uuid.startswith(("GPU-", "MIG-")) else ""
    return f"drawing on the CPU{unused}"


async def _either(event: asyncio.Event, ended: asyncio.Future[None]) -> bool:
    """Wait for the first of the two; return whether it is the end."""
    waiting = asyncio.create_task(event.wait())
    either: set[asyncio.Future[Any]] = {waiting, ended}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return ended.done()


def _call(loop: asyncio.AbstractEventLoop, function: Any, *arguments: Any) -> None:
    """Call a function on the loop from another thread; no error if the loop has already ended."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        return


def exit_code(error: BaseException) -> tuple[ExitCode, str]:
    """Return the exit code for an exception from `run`, and the last line of stderr."""
    if isinstance(error, PortUnavailable):
        return ExitCode.USAGE, f"footlights-viewer: {error}"
    if isinstance(error, ViewerFailure):
        return ExitCode.FAILED, error.line()
    failure = ViewerFailure(FailureReason.INTERNAL, f"the viewer failed: {type(error).__name__}: {error}")
    return ExitCode.FAILED, failure.line()
