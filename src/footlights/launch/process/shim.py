"""The small process between the agent and one application; it outlives the agent and records the exit.

Run as ``python -S -P -m footlights.launch.process.shim DIRECTORY``, standard library only. The directory holds
``order.json`` (what to run); the shim adds ``shim.json`` (who it and the application are, written before the exec),
``output/`` and, when the whole tree is gone, ``exit.json``. The starter forks it into a session of its own, says as
JSON how the start went, and is gone; a second start for the same directory starts nothing.

SIGTERM ends the tree (SIGKILL after the grace), SIGUSR1 at once. When the application's first process ends by itself,
what is left of its tree is ended too, with a grace of 2 s at most. Orphans come to this process, the tree's subreaper.
If it is killed itself, the kernel kills the application's first process (PR_SET_PDEATHSIG), which could not be watched.

The application runs in a control group of its own, where the agent could make one, and in a Landlock domain, where the
kernel has it: there it can neither write to the agent's directory, except its own state, nor signal or trace this
process or the agent.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from footlights.launch.process.output import OutputWriter
from footlights.linux import cgroups, files, landlock, prctl, procfs

ORDER, STATE, EXIT, LOCK, OUTPUT = "order.json", "shim.json", "exit.json", "shim.lock", "output"
RESERVED = "exit.reserved"
"""Space for ``exit.json``, had before the application is executed: a disk may be full when it ends."""
_RESERVED_BYTES = 512
_EXIT_PATIENCE_S, _EXIT_AGAIN_S = 60.0, 0.2
LEFTOVER_GRACE_S = 2.0
_KILL_AGAIN_S = 0.05
_KILL_AGAIN_MOST_S = 1.0
_NO_STATUS = 255


def _reserve(path: Path) -> None:
    """Reserve the space that ``_fill_in`` needs, on disk."""
    with path.open("wb") as file:
        file.write(b" " * _RESERVED_BYTES)
        file.flush()
        os.fsync(file.fileno())


def _fill_in(reserved: Path, path: Path, content: bytes) -> None:
    """Write into reserved space, and only then give the file its name. JSON ignores the blanks after it."""
    if reserved.exists():
        with reserved.open("r+b") as file:
            file.write(content.ljust(_RESERVED_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.replace(reserved, path)
    files.sync_directory(path.parent)


def main(arguments: list[str]) -> int:
    """Start the shim for one directory and say how that went. Returns the starter's exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m footlights.launch.process.shim DIRECTORY\n")
        return 2
    directory = Path(arguments[0])
    # The agent may leak descriptors (uvloop does): held here they would keep the agent's own pipes open, and
    # the application must have none of them.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    said, say = os.pipe()
    if os.fork() == 0:
        os.close(said)
        _become_shim(directory, say)
    os.close(say)
    with os.fdopen(said, "rb") as answer:
        text = answer.read()
    sys.stdout.buffer.write(text or b'{"answer": "failed", "reason": "SHIM_FAILED", "message": "see shim.err"}')
    sys.stdout.buffer.flush()
    return 0


def _become_shim(directory: Path, say: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        try:
            _redirect(directory)
            shim = Shim(directory, say)
        except OSError as error:
            _say(say, "failed", **_complaint(error))
            raise
        status = shim.run()
    except BaseException as error:  # the last chance to say why: nothing is above it
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(status)


def _redirect(directory: Path) -> None:
    """Close everything of the agent's, so that its pipes close when it dies and not when the shim does."""
    null = os.open(os.devnull, os.O_RDWR)
    words = os.open(directory / "shim.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(words, 2)
    os.close(null)
    os.close(words)
    os.chdir("/")


class Shim:
    """One application from its exec to the end of the last process of its tree."""

    def __init__(self, directory: Path, say: int) -> None:
        self._directory = directory
        self._say = say
        self._order = json.loads((directory / ORDER).read_text(encoding="utf-8"))
        self._group = Path(self._order["group"]) if self._order["group"] else None
        self._application = 0
        self._exit_code: int | None = None
        self._output: OutputWriter | None = None
        self._pipe = -1
        self._kill_at: float | None = None
        """When SIGKILL is due, on the monotonic clock; None while nothing is to end."""
        self._kill_again_s = _KILL_AGAIN_S
        self._term_sent = False
        self._killed = False

    def run(self) -> int:
        """Start the application and stay until its tree is gone; return the shim's exit status."""
        try:
            if not self._is_first():
                _say(self._say, "already")
                return 0
            prctl.become_subreaper()
            wake = self._catch_signals()
            if not self._start():
                return 0
        except (OSError, RuntimeError) as error:
            _say(self._say, "failed", **_complaint(error))
            raise
        self._watch(wake)
        self._finish()
        return 0

    def _is_first(self) -> bool:
        """Hold the directory, for as long as this process lives; False where it was started before."""
        try:
            files.lock_file(self._directory / LOCK)
        except BlockingIOError:
            return False
        return not (self._directory / STATE).exists() and not (self._directory / EXIT).exists()

    def _catch_signals(self) -> int:
        """Have every signal of interest make ``wake`` readable, each as its number in one byte."""
        wake, woken = os.pipe()
        for descriptor in (wake, woken):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda _number, _frame: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        return wake

    def _start(self) -> bool:
        """Fork, write down who is who, and only then let the child execute the application."""
        _reserve(self._directory / RESERVED)
        self._output = OutputWriter(
            self._directory / OUTPUT,
            segment_bytes=self._order["segment_bytes"],
            segments=self._order["segments"],
        )
        self._pipe, out = os.pipe()
        go, let_go = os.pipe()
        failed, fail = os.pipe()
        self._application = os.fork()
        if self._application == 0:
            os.close(let_go)  # or it would wait for its own end of the pipe
            self._execute(out, go, fail)
        for descriptor in (out, go, fail):
            os.close(descriptor)
        os.set_blocking(self._pipe, False)
        shim, application = procfs.Identity.of(os.getpid()), procfs.Identity.of(self._application)
        try:
            if shim is None or application is None:
                raise RuntimeError("the application's process ended before it was executed")
            files.replace_json(self._directory / STATE, {"shim": shim.to_json(), "application": application.to_json()})
            os.write(let_go, b"g")
        finally:
            os.close(let_go)
        with os.fdopen(failed, "rb") as reason:
            problem = reason.read()
        if problem:
            os.waitpid(self._application, 0)
            (self._directory / STATE).unlink()
            self._output.close()
            _say(self._say, "failed", **json.loads(problem))
            return False
        _say(self._say, "started", shim=shim.to_json())
        return True

    def _execute(self, out: int, go: int, fail: int) -> NoReturn:
        """Become the application. Runs in the child; the pipes that stay open close on exec."""
        try:
            os.setsid()
            prctl.signal_on_parent_death(signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_DFL)
            # Should the shim die before the line above took effect, the pipe is closed and nothing is executed.
            if os.read(go, 1) != b"g":
                os._exit(_NO_STATUS)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.chdir(self._order["working_directory"])
            self._confine()
            argv = self._order["argv"]
            os.execve(argv[0], argv, self._order["environment"])  # noqa: S606  # no shell: that is the point
        except BaseException as error:
            os.write(fail, json.dumps(_why(error, self._order)).encode())
        finally:
            os._exit(_NO_STATUS)

    def _confine(self) -> None:
        """Enter the launch's control group, and give up what only this process and the agent may do. In the child."""
        if self._group is not None:
            with contextlib.suppress(OSError):  # without it the end is proved by the tree alone
                cgroups.join(self._group)
        if self._order["read_only"]:
            landlock.confine(self._order["read_only"], self._order["writable"])

    def _watch(self, wake: int) -> None:
        """Copy output, reap, and end the tree when asked; returns when no process of it is left."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(self._pipe, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll(self._wait_ms()):
                if descriptor == wake:
                    self._handle_signals(os.read(wake, 4096))
                elif not self._copy(1):
                    poll.unregister(self._pipe)
            if not self._reap():
                return
            if self._exit_code is not None and self._kill_at is None:
                self._end(min(self._order["stop_grace_s"], LEFTOVER_GRACE_S))
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._killed = True
                if self._group is not None:
                    cgroups.kill(self._group)
                procfs.kill(procfs.descendants(os.getpid()), signal.SIGKILL)
                # A process that forks as fast as it is killed loses this race in the end; one that waits on a dead
                # disk is not worth a busy loop.
                self._kill_at = time.monotonic() + self._kill_again_s
                self._kill_again_s = min(self._kill_again_s * 2, _KILL_AGAIN_MOST_S)

    def _wait_ms(self) -> int | None:
        return None if self._kill_at is None else max(0, int((self._kill_at - time.monotonic()) * 1000) + 1)

    def _handle_signals(self, numbers: bytes) -> None:
        if signal.SIGUSR1 in numbers:
            self._end(0.0)
        elif signal.SIGTERM in numbers:
            self._end(self._order["stop_grace_s"])

    def _end(self, grace_s: float) -> None:
        """Begin to end the tree; a later call may only bring its end nearer."""
        due = time.monotonic() + grace_s
        self._kill_at = due if self._kill_at is None else min(self._kill_at, due)
        if grace_s > 0 and not self._term_sent:
            self._term_sent = True
            procfs.kill(procfs.descendants(os.getpid()), signal.SIGTERM)

    def _reap(self) -> bool:
        """Reap whatever has ended; False when nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._application:
                self._exit_code = os.waitstatus_to_exitcode(status)

    def _copy(self, most: int) -> bool:
        """Copy at most ``most`` pieces of output; False at its end."""
        assert self._output is not None
        for _ in range(most):
            try:
                data = os.read(self._pipe, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._output.write(data)
        return True

    def _finish(self) -> None:
        """Write down the end: every process is gone, so what is in the pipe is all there will be."""
        assert self._output is not None
        if self._group is not None:
            # What was reaped leaves its group a moment later; anything else in there has no business.
            cgroups.end(self._group)
        self._copy(32)
        with contextlib.suppress(OSError):
            self._output.close()
        end = {
            "exit_code": self._exit_code,
            "dropped_output_bytes": self._output.dropped_bytes,
            "killed": self._killed and self._term_sent,
        }
        give_up = time.monotonic() + _EXIT_PATIENCE_S
        while True:
            try:
                _fill_in(self._directory / RESERVED, self._directory / EXIT, json.dumps(end).encode())
                return
            except FileNotFoundError:
                return  # the launch was given up, its directory with it
            except OSError:
                # Only this process knows how the application ended: a disk that fails for a moment must not lose it.
                if time.monotonic() >= give_up:
                    raise
                time.sleep(_EXIT_AGAIN_S)


def _say(descriptor: int, answer: str, **facts: object) -> None:
    with contextlib.suppress(OSError):  # the agent died while it waited; its successor reads the directory
        os.write(descriptor, json.dumps({"answer": answer, **facts}).encode())
    os.close(descriptor)


def _complaint(error: OSError | RuntimeError) -> dict[str, object]:
    number = error.errno if isinstance(error, OSError) else None
    message = f"the shim could not start the application: {error}"
    return {"reason": "SHIM_FAILED", "message": message, "errno": number}


def _why(error: BaseException, order: dict[str, object]) -> dict[str, object]:
    argv, number = order["argv"], None
    command = argv[0] if isinstance(argv, list) else ""
    folder = str(order["working_directory"])
    if isinstance(error, OSError) and not os.path.isdir(folder):
        reason = "WORKING_DIRECTORY_NOT_FOUND"
        text = f"working_directory {folder!r} is not a directory on this node: create it, or correct the version."
    elif isinstance(error, FileNotFoundError):
        reason, fix = "COMMAND_NOT_FOUND", "install it or correct the version's command."
        text = f"command {command!r} is not on this node (or its interpreter is not): {fix}"
    elif isinstance(error, PermissionError):
        reason = "COMMAND_NOT_EXECUTABLE"
        text = f"command {command!r} may not be executed by the agent's user: {error.strerror}."
    elif isinstance(error, OSError) and error.errno == errno.E2BIG:
        # No node's fault: all of them have the same limit, and what a user gave is in it.
        reason = "BAD_ASSIGNMENT"
        text = (
            f"command {command!r} could not be executed, since an argument or all together are too long: shorten them."
        )
    else:
        reason, number = "START_FAILED", error.errno if isinstance(error, OSError) else None
        text = f"command {command!r} could not be executed: {error}."
    return {"reason": reason, "message": text, "errno": number}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
