"""Ask one device everything, and make a reading of what it answered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from footlights.devices import capabilities, health
from footlights.devices.driver import (
    DriverDevice,
    DriverError,
    DriverGoneError,
    Memory,
    MigAttributes,
    RemappedRows,
    UnsupportedError,
)
from footlights.devices.kinds import DeviceKind
from footlights.devices.reading import DeviceHealth, DeviceProcess, DeviceReading, HealthReason, ProcessKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


@dataclass(slots=True)
class Answers:
    """What a device answered; None where it did not."""

    name: str | None = None
    pci_bus_id: str | None = None
    memory: Memory | None = None
    utilization_percent: int | None = None
    encoder_sessions: int | None = None
    encoder_capacity: int | None = None
    graphics_allowed: bool | None = None
    compute: Sequence[DeviceProcess] | None = None
    graphics: Sequence[DeviceProcess] | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    retired_pages: int | None = None
    retired_pages_pending: bool | None = None
    remapped_rows: RemappedRows | None = None
    recovery_action: str | None = None
    mig: MigAttributes | None = None
    unsupported: set[str] = field(default_factory=set)
    """Names of the fields above that this device says it does not support."""
    failures: dict[str, DriverError] = field(default_factory=dict)
    """Names of the fields above whose question failed, with the error."""

    def ask(self, name: str, question: Callable[[], T]) -> T | None:
        """Put one question and remember how it went. A lost GPU is not asked again: each call may take
        seconds.

        Raises:
            DriverGoneError: there is nobody left to answer anything.
        """
        if self.lost:
            return None
        try:
            return question()
        except DriverGoneError:
            raise
        except UnsupportedError:
            self.unsupported.add(name)
        except DriverError as error:
            self.failures[name] = error
        return None

    @property
    def lost(self) -> bool:
        """Whether the GPU said that it is off the bus."""
        return any(error.code == "GPU_IS_LOST" for error in self.failures.values())


def gather(device: DriverDevice) -> Answers:
    """Ask a whole GPU everything but its MIG layout."""
    answers = Answers()
    ask = answers.ask
    answers.name = ask("name", device.name)
    answers.pci_bus_id = ask("pci_bus_id", device.pci_bus_id)
    _ask_load(device, answers)
    answers.encoder_capacity = ask("encoder_capacity", device.encoder_capacity)
    answers.graphics_allowed = ask("graphics_allowed", device.graphics_allowed)
    answers.ecc_corrected = ask("ecc_corrected", device.ecc_corrected)
    answers.ecc_uncorrected = ask("ecc_uncorrected", device.ecc_uncorrected)
    answers.retired_pages = ask("retired_pages", device.retired_pages)
    answers.retired_pages_pending = ask("retired_pages_pending", device.retired_pages_pending)
    answers.remapped_rows = ask("remapped_rows", device.remapped_rows)
    answers.recovery_action = ask("recovery_action", device.recovery_action)
    return answers


def gather_instance(instance: DriverDevice) -> Answers:
    """Ask a MIG instance what can be asked of one; error counters are kept by its GPU."""
    answers = Answers()
    answers.name = answers.ask("name", instance.name)
    answers.mig = answers.ask("mig", instance.mig_attributes)
    _ask_load(instance, answers)
    return answers


def gpu_reading(uuid: str, index: int, answers: Answers, *, kind: DeviceKind, xids: Sequence[int]) -> DeviceReading:
    """Judge a whole GPU's answers."""
    name = answers.name or "NVIDIA GPU"
    verdict, reasons = health.judge(answers, xids)
    return DeviceReading(
        uuid=uuid,
        kind=kind,
        name=name,
        index=index,
        memory_total_bytes=answers.memory.total if answers.memory else None,
        memory_free_bytes=answers.memory.free if answers.memory else None,
        utilization_percent=answers.utilization_percent,
        encoder_sessions=answers.encoder_sessions,
        processes=_processes(answers),
        graphics=answers.graphics_allowed is not False,
        encoder=capabilities.has_encoder(name, refused="encoder_capacity" in answers.unsupported),
        health=verdict,
        health_reasons=reasons,
        pci_bus_id=answers.pci_bus_id,
        note=capabilities.note(name),
    )


def instance_reading(uuid: str, parent: DeviceReading, answers: Answers, *, kind: DeviceKind) -> DeviceReading:
    """Judge a MIG instance's answers. It is as healthy as the GPU it was cut from, at best."""
    verdict, reasons = health.judge(answers, ())
    profile = answers.mig.profile if answers.mig else None
    return replace(
        parent,
        uuid=uuid,
        kind=kind,
        name=answers.name or parent.name,
        memory_total_bytes=answers.memory.total if answers.memory else None,
        memory_free_bytes=answers.memory.free if answers.memory else None,
        utilization_percent=answers.utilization_percent,
        encoder_sessions=answers.encoder_sessions,
        processes=_processes(answers),
        graphics=profile is not None and capabilities.profile_draws(profile),
        encoder=answers.mig is not None and answers.mig.encoders > 0,
        health=health.worst(parent.health, verdict),
        health_reasons=parent.health_reasons + tuple(r for r in reasons if r not in parent.health_reasons),
        parent_uuid=parent.uuid,
        mig_profile=profile,
    )


def last_known(last_seen: DeviceReading, verdict: DeviceHealth, reason: HealthReason) -> DeviceReading:
    """A device that cannot be read now: who it was, and nothing that it measured then."""
    return replace(
        last_seen,
        memory_free_bytes=None,
        utilization_percent=None,
        encoder_sessions=None,
        processes=None,
        health=verdict,
        health_reasons=(reason,),
    )


def _ask_load(device: DriverDevice, answers: Answers) -> None:
    ask = answers.ask
    answers.memory = ask("memory", device.memory)
    answers.utilization_percent = ask("utilization_percent", device.utilization_percent)
    answers.encoder_sessions = ask("encoder_sessions", device.encoder_sessions)
    answers.compute = ask("compute", device.compute_processes)
    answers.graphics = ask("graphics", device.graphics_processes)


def _processes(answers: Answers) -> tuple[DeviceProcess, ...] | None:
    # A device that supports no graphics processes has none; one whose list failed may have any.
    if answers.compute is None or (answers.graphics is None and "graphics" not in answers.unsupported):
        return None
    found = (*answers.compute, *(answers.graphics or ()))
    return tuple(sorted(found, key=lambda process: (process.pid, process.kind is ProcessKind.GRAPHICS)))
