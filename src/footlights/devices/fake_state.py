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

import dataclasses
import uuid as uuids
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from footlights.devices.driver import RemappedRows
from footlights.devices.reading import ProcessKind

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

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
    """Make a state from plain data. Raises ValueError: names the member, what is wrong with it, and what is allowed."""
    members = dict(_mapping("state", given))
    gpus: list[FakeGpu] = []
    for position, entry in enumerate(_list("gpus", members.pop("gpus", []))):
        gpu = dict(_mapping(f"gpus[{position}]", entry))
        count = gpu.pop("count", 1)
        if type(count) is not int or count < 1 or (count > 1 and "uuid" in gpu):
            raise ValueError(f"gpus[{position}].count: must be at least 1, and 1 with a uuid (got {count!r})")
        for _ in range(count):
            uuid = f"GPU-{uuids.uuid5(_NAMESPACE, f'{machine}/{len(gpus)}')}"
            gpus.append(_gpu(f"gpus[{position}]", {"uuid": uuid, **gpu}))
    known = [gpu.uuid for gpu in gpus] + [i.uuid for gpu in gpus for i in gpu.mig or ()]
    repeated = {uuid for uuid in known if known.count(uuid) > 1}
    if repeated:
        raise ValueError(f"gpus: uuid {min(repeated)} is there twice; every device needs its own")
    return _make(FakeState, "state", {**members, "gpus": tuple(gpus)})


def _gpu(where: str, given: Mapping[str, Any]) -> FakeGpu:
    members = dict(given)
    if members.get("processes") is not None:
        members["processes"] = _processes(where, members.get("processes", []))
    if members.get("mig") is not None:
        members["mig"] = tuple(
            _instance(f"{where}.mig[{i}]", entry) for i, entry in enumerate(_list(f"{where}.mig", members["mig"]))
        )
    if members.get("remapped_rows") is not None:
        at = f"{where}.remapped_rows"
        members["remapped_rows"] = _make(RemappedRows, at, _mapping(at, members["remapped_rows"]))
    if "errors" in members:
        members["errors"] = dict(_mapping(f"{where}.errors", members["errors"]))
    if "xids" in members:
        members["xids"] = tuple(_list(f"{where}.xids", members["xids"]))
    return _make(FakeGpu, where, members)


def _instance(where: str, given: Any) -> FakeInstance:
    members = dict(_mapping(where, given))
    members["processes"] = _processes(where, members.get("processes", []))
    return _make(FakeInstance, where, members)


def _processes(where: str, given: Any) -> tuple[FakeProcess, ...]:
    made = []
    for position, entry in enumerate(_list(f"{where}.processes", given)):
        at = f"{where}.processes[{position}]"
        members = dict(_mapping(at, entry))
        kind = members.get("kind", "COMPUTE")
        if kind not in ProcessKind.__members__:
            raise ValueError(f"{at}.kind: {kind!r}; one of {', '.join(ProcessKind.__members__)}")
        made.append(_make(FakeProcess, at, {**members, "kind": ProcessKind[kind]}))
    return tuple(made)


def _make(kind: type[T], where: str, members: Mapping[str, Any]) -> T:
    allowed = {f.name: str(f.type) for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in members.items():
        if name not in allowed:
            raise ValueError(f"{where}.{name}: unknown; one of {', '.join(allowed)}")
        values[name] = _scalar(f"{where}.{name}", allowed[name], name, value)
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def _scalar(where: str, declared: str, name: str, value: Any) -> Any:
    if name.endswith("_bytes") and isinstance(value, str):
        number = value.removesuffix("GiB").strip()
        if not value.endswith("GiB") or not number.replace(".", "", 1).isdigit():
            raise ValueError(f"{where}: {value!r} is not a size; give bytes, or a size such as 48GiB")
        return int(float(number) * GIB)
    options = [option.strip() for option in declared.split("|")]
    plain = {"int": int, "str": str, "bool": bool}
    if not all(option in plain or option == "None" for option in options):
        return value
    if value is None and "None" in options:
        return value
    if not any(type(value) is plain[option] for option in options if option in plain):
        raise ValueError(f"{where}: {value!r}; expected {declared}")
    return value


def _mapping(where: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: {given!r}; expected members and their values")
    return given


def _list(where: str, given: Any) -> Sequence[Any]:
    if not isinstance(given, list | tuple):
        raise ValueError(f"{where}: {given!r}; expected a list")
    return given
