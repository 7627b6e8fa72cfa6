"""Ask NVML in a process of its own: a library can be loaded only once in each.

Run as a program it reads pickled requests ``(method, arguments)`` from its input, one after another, and writes pickled
``("answer" | "error", value)`` to its output.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from footlights.devices.reading import DeviceInventory, DeviceReading

_ROOT = Path(__file__).resolve().parents[2]


class ProbedDevices:
    """`Devices` that live in another process, with an environment of its own."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.devices.probe"],
            cwd=_ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def read(self) -> DeviceInventory:
        return cast(DeviceInventory, self._ask("read"))

    def read_one(self, uuid: str) -> DeviceReading:
        return cast(DeviceReading, self._ask("read_one", uuid))

    def forget(self, uuid: str) -> None:
        self._ask("forget", uuid)

    def close(self) -> None:
        self._ask("close")

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()

    def _ask(self, method: str, *arguments: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((method, arguments), self._process.stdin)
        self._process.stdin.flush()
        outcome, value = pickle.load(self._process.stdout)
        if outcome == "error":
            raise value
        return value


def _serve() -> None:
    from footlights.devices.nvml.driver import NvmlDevices

    devices = NvmlDevices(reopen_after_s=0)
    while True:
        try:
            method, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = ("answer", getattr(devices, method)(*arguments))
        except Exception as error:
            answer = ("error", error)
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
