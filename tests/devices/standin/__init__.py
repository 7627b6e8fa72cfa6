"""A stand-in for NVIDIA's library, so that the real binding and its ctypes structures are exercised without a GPU.

Its state is a `FakeState`: the same knobs as `FakeDevices`. For a process of its own, as in a system test::

    library = build()
    machine = Standin(library, tmp_path / "gpus.state")
    machine.set(FakeState(gpus=(FakeGpu(uuid="GPU-1"),)))
    subprocess.Popen([...], env={**os.environ, **machine.environment})
    machine.set(FakeState())  # every GPU falls off the bus
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pynvml

from footlights.devices.fake_state import FakeGpu, FakeInstance, FakeProcess, FakeState
from footlights.devices.reading import ProcessKind

NAME = "libnvidia-ml.so.1"
_SOURCE = Path(__file__).with_name("nvml.c")
_CACHE = Path(__file__).resolve().parents[3] / "build" / "standin-nvml"


@dataclass(frozen=True, slots=True)
class Standin:
    """A built library and the file that sets it."""

    library: Path
    state_path: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find this library instead of NVIDIA's."""
        before = os.environ.get("LD_LIBRARY_PATH")
        path = str(self.library.parent) + (f":{before}" if before else "")
        return {"LD_LIBRARY_PATH": path, "FOOTLIGHTS_NVML_STATE": str(self.state_path)}

    def set(self, state: FakeState) -> None:
        """Make the library answer this from its next call on."""
        new = self.state_path.with_suffix(".new")
        new.write_text("\n".join(_lines(state)) + "\n")
        new.replace(self.state_path)


def build(absent: Sequence[str] = (), cache: Path = _CACHE) -> Path:
    """The compiled library; made once for each source text and set of absent functions.

    Args:
        absent: functions to leave out of its symbols, as an older driver lacks them.

    Raises:
        RuntimeError: there is no C compiler; says what to install.
    """
    version = hashlib.sha256(_SOURCE.read_bytes() + " ".join(sorted(absent)).encode() + sys.platform.encode())
    library = cache / version.hexdigest()[:16] / NAME
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        symbols = Path(scratch, "symbols.map")
        hidden = "".join(f" {name};" for name in absent)
        symbols.write_text(f"{{ global: nvml*; local: *;{hidden} }};\n")
        made = Path(scratch, NAME)
        command = [*compiler(), "-shared", "-fPIC", "-O1", "-pthread", f"-Wl,-soname,{NAME}"]
        command += [f"-Wl,--version-script={symbols}", "-o", str(made), str(_SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        made.replace(library)  # two test runs may build at once
    return library


def compiler() -> list[str]:
    """The command of a C compiler: the system's, or the one that the development extras bring."""
    found = shutil.which("cc")
    if found:
        return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise RuntimeError("no C compiler: apt-get install gcc, or pip install ziglang")


def _lines(state: FakeState) -> Iterator[str]:
    yield f"driver_version {state.driver_version}"
    yield f"library_version {state.library_version}"
    yield f"generation {state.generation}"
    if state.driver_error:
        yield f"driver_error {_code(state.driver_error)}"
    for gpu in state.gpus:
        yield from _gpu(gpu)


def _gpu(gpu: FakeGpu) -> Iterator[str]:
    yield f"gpu {gpu.uuid}"
    yield f"name {gpu.name}"
    yield from _line("pci", gpu.pci_bus_id)
    yield from _memory(gpu.memory_total_bytes, gpu.memory_used_bytes)
    yield from _line("utilization", gpu.utilization_percent)
    yield from _line("encoder_sessions", gpu.encoder_sessions)
    yield from _line("encoder_capacity", gpu.encoder_capacity)
    yield from _line("graphics_allowed", gpu.graphics_allowed)
    yield from _processes(gpu.processes)
    yield from _line("ecc_corrected", gpu.ecc_corrected)
    yield from _line("ecc_uncorrected", gpu.ecc_uncorrected)
    yield from _line("retired_pages", gpu.retired_pages)
    yield from _line("retired_pages_pending", gpu.retired_pages_pending)
    rows = gpu.remapped_rows
    if rows is not None:
        yield f"remapped_rows {rows.correctable} {rows.uncorrectable} {int(rows.pending)} {int(rows.failed)}"
    if gpu.recovery_action is not None:
        yield f"recovery_action {getattr(pynvml, f'NVML_GPU_RECOVERY_ACTION_{gpu.recovery_action}')}"
    yield f"lost {int(gpu.lost)}"
    for function, error in gpu.errors.items():
        yield f"error {function} {_code(error)}"
    for xid in gpu.xids:
        yield f"xid {xid}"
    if gpu.mig is not None:
        yield "mig 1"
        for instance in gpu.mig:
            yield from _instance(gpu, instance)


def _instance(gpu: FakeGpu, instance: FakeInstance) -> Iterator[str]:
    yield f"instance {instance.uuid}"
    yield f"name {gpu.name} MIG {instance.profile}"
    yield f"profile {instance.profile}"
    yield f"encoders {instance.encoders}"
    yield from _memory(instance.memory_total_bytes, instance.memory_used_bytes)
    yield from _processes(instance.processes)


def _line(key: str, value: int | str | bool | None) -> Iterator[str]:
    if value is not None:
        yield f"{key} {int(value) if isinstance(value, bool) else value}"


def _memory(total: int | None, used: int) -> Iterator[str]:
    if total is not None:
        yield f"memory {total} {used}"


def _processes(processes: Sequence[FakeProcess] | None) -> Iterator[str]:
    if processes is None:
        return
    yield "processes 1"
    for process in processes:
        kind = "C" if process.kind is ProcessKind.COMPUTE else "G"
        used = -1 if process.used_memory_bytes is None else process.used_memory_bytes
        yield f"process {kind} {process.pid} {used} {process.name or ''}".rstrip()


def _code(error: str) -> int:
    code: int = getattr(pynvml, f"NVML_ERROR_{error}")
    return code
