"""The state of simulated GPUs: set in code, or by a file.

It is YAML or JSON, with the members of `FakeState`::

    driver_version: "570.124.06"
    gpus:
      - {count: 3, name: NVIDIA L40S, memory_total_bytes: 48GiB}
      - uuid: GPU-7d1f3b6e-0000-0000-0000-000000000001
        memory_used_bytes: 3GiB
        processes: [{pid: 4711, kind: COMPUTE, used_memory_bytes: 3GiB, name: python}]
        errors: {nvmlDeviceGetUtilizationRates: UNKNOWN}
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping  # noqa: TC003 - read_record needs the members' types
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from footlights.devices.driver import RemappedRows  # noqa: TC001
from footlights.devices.reading import ProcessKind
from footlights.devices.records import as_list, as_mapping, read_record
from footlights.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

_NAMESPACE = uuids.UUID("6f3b8d0a-5c0e-5b1f-9c3d-2f6a1d1e7b10")
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class FakeProcess:
    """A process on a simulated device."""

    pid: int
    kind: ProcessKind = ProcessKind.COMPUTE
    used_memory_bytes: int | None = 0
    name: str | None = None


@dataclass(frozen=True, slots=True)
class FakeInstance:
    """A MIG instance."""

    uuid: str
    profile: str = "1g.10gb"
    memory_total_bytes: int = 10 * GIB
    memory_used_bytes: int = 0
    encoders: int = 0
    processes: tuple[FakeProcess, ...] = ()


@dataclass(frozen=True, slots=True)
class FakeGpu:
    """One GPU's state. ``None`` where the driver shall say that it does not support the question."""

    uuid: str
    name: str = "NVIDIA L40S"
    pci_bus_id: str | None = None
    memory_total_bytes: int | None = 48 * GIB
    memory_used_bytes: int = 0
    utilization_percent: int | None = 0
    encoder_sessions: int | None = 0
    encoder_capacity: int | None = 100
    graphics_allowed: bool | None = None
    processes: tuple[FakeProcess, ...] | None = ()
    ecc_corrected: int | None = 0
    ecc_uncorrected: int | None = 0
    retired_pages: int | None = None
    retired_pages_pending: bool | None = None
    remapped_rows: RemappedRows | None = None
    recovery_action: str | None = None
    """NVML's name without its prefix, as ``GPU_RESET``."""
    mig: tuple[FakeInstance, ...] | None = None
    """Instances of a GPU in MIG mode (perhaps none yet); None where it is not in MIG mode."""
    lost: bool = False
    """Listed, and answers every question with ``GPU_IS_LOST``. A GPU left out of the state has gone
    altogether."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """Error by function: NVML's name without version suffix to NVML's error without prefix."""
    xids: tuple[int, ...] = ()
    """Critical errors so far; those added after the driver was opened arrive as events."""


@dataclass(frozen=True, slots=True)
class FakeState:
    """A machine's GPUs and driver."""

    gpus: tuple[FakeGpu, ...] = ()
    driver_version: str = "570.124.06"
    library_version: str = "12.570.124.06"
    driver_error: str | None = None
    """The driver as a whole answers nothing but this, as ``DRIVER_NOT_LOADED``."""
    generation: int = 0
    """Another number is a restarted driver: what was opened before is refused with ``UNINITIALIZED``."""


def load(path: Path, *, machine: str = "fake") -> FakeState:
    """Read a state from a YAML or JSON file. Raises ValueError: it is not a state; names the file and the member."""
    import yaml  # here, since only simulations need it

    try:
        given = yaml.safe_load(path.read_text())
        return parse(given, machine=machine)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def parse(given: Any, *, machine: str = "fake") -> FakeState:
    """Make a state from plain data. Raises ValueError, for the member, what is wrong with it and what is allowed."""
    try:
        return _parse(given, machine)
    except InvalidArgument as error:
        raise ValueError(f"{error.field}: {error.problem}") from error


def _parse(given: Any, machine: str) -> FakeState:
    members = dict(as_mapping("state", given))
    gpus: list[FakeGpu] = []
    for position, entry in enumerate(as_list("gpus", members.pop("gpus", []))):
        gpu = dict(as_mapping(f"gpus[{position}]", entry))
        count = gpu.pop("count", 1)
        if type(count) is not int or count < 1 or (count > 1 and "uuid" in gpu):
            raise ValueError(f"gpus[{position}].count: must be at least 1, and 1 with a uuid (got {count!r})")
        for _ in range(count):
            uuid = f"GPU-{uuids.uuid5(_NAMESPACE, f'{machine}/{len(gpus)}')}"
            gpus.append(read_record(FakeGpu, {"uuid": uuid, **gpu}, f"gpus[{position}]"))
    known = [gpu.uuid for gpu in gpus] + [i.uuid for gpu in gpus for i in gpu.mig or ()]
    repeated = {uuid for uuid in known if known.count(uuid) > 1}
    if repeated:
        raise ValueError(f"gpus: uuid {min(repeated)} is there twice; every device needs its own")
    return replace(read_record(FakeState, members, "state"), gpus=tuple(gpus))
