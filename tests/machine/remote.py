"""Runs the methods of an object in a process of its own, in the machine; this file is also that process.

``python -m tests.machine.remote MODULE FUNCTION ARGUMENTS`` makes the object. Calls and answers are pickled, one after
the length of each; several calls may be under way at once.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import itertools
import os
import pickle
import signal
import struct
import sys
from typing import TYPE_CHECKING, Any

from footlights.linux import procfs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LENGTH = struct.Struct("!Q")


class Remote:
    """Stands for an object in the machine: its coroutine methods are called there."""

    def __init__(self, enter: Sequence[str], make: Callable[..., object], *arguments: Any) -> None:
        self._command = [
            *(*enter, "env", "-i", f"PATH={os.defpath}", "PYTHONDONTWRITEBYTECODE=1"),
            *(f"PYTHONPATH={':'.join(path for path in sys.path if path)}", sys.executable, "-m", __name__),
            *(make.__module__, make.__qualname__, base64.b64encode(pickle.dumps(arguments)).decode()),
        ]
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*arguments: Any, **named: Any) -> Any:
            async with self._starting:
                if self._process is None:
                    await self._start()
            assert self._process is not None
            assert self._process.stdin is not None
            number, future = next(self._numbers), asyncio.get_running_loop().create_future()
            self._waiting[number] = future
            content = pickle.dumps((number, name, arguments, named))
            self._process.stdin.write(_LENGTH.pack(len(content)) + content)
            await self._process.stdin.drain()
            return await future

        if name.startswith("_"):
            raise AttributeError(name)
        return call

    async def kill(self) -> None:
        """End the process as nothing is ended that may say goodbye."""
        if self._process is not None:
            procfs.kill(procfs.descendants(self._process.pid), signal.SIGKILL)
        await self.disconnect()

    async def disconnect(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        assert self._reader is not None
        await self._reader

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self._reader = asyncio.create_task(self._read(self._process), name="remote answers")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while True:
                (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
                number, value, error = pickle.loads(await process.stdout.readexactly(length))
                future = self._waiting.pop(number)
                if future.done():  # who called is gone
                    continue
                if error is None:
                    future.set_result(value)
                else:
                    future.set_exception(_exception(error))
        except asyncio.IncompleteReadError:
            pass
        finally:
            for future in self._waiting.values():
                future.cancel("the process in the machine has ended")
            self._waiting.clear()


def _content(error: BaseException) -> tuple[str, str, tuple[Any, ...], dict[str, Any]]:
    """Take an exception apart: those with parameters of their own cannot be pickled."""
    return type(error).__module__, type(error).__qualname__, error.args, dict(vars(error))


def _exception(content: tuple[str, str, tuple[Any, ...], dict[str, Any]]) -> BaseException:
    module, name, arguments, members = content
    kind = getattr(importlib.import_module(module), name)
    error: BaseException = kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(members)
    return error


async def _serve(target: object) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    tasks: set[asyncio.Task[None]] = set()
    while True:
        try:
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            call = pickle.loads(await reader.readexactly(length))
        except asyncio.IncompleteReadError:
            break
        task = asyncio.create_task(_answer(target, out.write, *call))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


async def _answer(
    target: object, write: Callable[[bytes | memoryview], Any], number: int, name: str, arguments: Any, named: Any
) -> None:
    answer: tuple[int, Any, Any]
    try:
        answer = (number, await getattr(target, name)(*arguments, **named), None)
    except Exception as error:
        answer = (number, None, _content(error))
    content = pickle.dumps(answer)
    data = memoryview(_LENGTH.pack(len(content)) + content)
    while data:
        data = data[write(data) :]


if __name__ == "__main__":
    module, function, given = sys.argv[1:]
    made = getattr(importlib.import_module(module), function)(*pickle.loads(base64.b64decode(given)))
    asyncio.run(_serve(made))
