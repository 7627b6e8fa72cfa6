"""Ask one device everything, and make a reading of what it answered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from footlights.devices import capabilities, driver, health
from footlights.devices.driver import (
    DriverError,
    DriverGoneError,
    Memory,
    MigAttributes,
    RemappedRows,
    UnsupportedError,
)
from footlights.devices.reading import DeviceHealth, DeviceProcess, DeviceReading, HealthReason, ProcessKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.devices.driver import DriverDevice, DriverQuestion
    from footlights.devices.kinds import DeviceKind

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
    mig_attributes: MigAttributes | None = None
    unsupported: set[str] = field(default_factory=set)
    """Names of the fields above that this device says it does not support."""
    failures: dict[str, DriverError] = field(default_factory=dict)
    """Names of the fields above whose question failed, with the error."""

    def ask(self, device: DriverDevice, question: DriverQuestion[T]) -> T | None:
        """Put one question and remember how it went. A lost GPU is not asked again: each call may take seconds."""
        if self.lost:
            return None
        try:
            return device.ask(question)
        except DriverGoneError:
            raise
        except UnsupportedError:
            self.unsupported.add(question.name)
        except DriverError as error:
            self.failures[question.name] = error
        return None

    @property
    def lost(self) -> bool:
        """Whether the GPU said that it is off the bus."""
        return any(error.code == "GPU_IS_LOST" for error in self.failures.values())


_LOAD: Final = (
    driver.MEMORY,
    driver.UTILIZATION_PERCENT,
    driver.ENCODER_SESSIONS,
    driver.COMPUTE,
    driver.GRAPHICS,
)
_GPU: Final = (
    driver.NAME,
    driver.PCI_BUS_ID,
    *_LOAD,
    driver.ENCODER_CAPACITY,
    driver.GRAPHICS_ALLOWED,
    driver.ECC_CORRECTED,
    driver.ECC_UNCORRECTED,
    driver.RETIRED_PAGES,
    driver.RETIRED_PAGES_PENDING,
    driver.REMAPPED_ROWS,
    driver.RECOVERY_ACTION,
)
_INSTANCE: Final = (driver.NAME, driver.MIG_ATTRIBUTES, *_LOAD)
"""What can be asked of a MIG instance; error counters are kept by its GPU."""


def gather(device: DriverDevice) -> Answers:
    """Ask a whole GPU everything but its MIG layout."""
    return _gather(device, _GPU)


def gather_instance(instance: DriverDevice) -> Answers:
    """Ask a MIG instance everything that it can be asked."""
    return _gather(instance, _INSTANCE)


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
    profile = answers.mig_attributes.profile if answers.mig_attributes else None
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
        encoder=answers.mig_attributes is not None and answers.mig_attributes.encoders > 0,
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


def _gather(device: DriverDevice, questions: Sequence[DriverQuestion[Any]]) -> Answers:
    answers = Answers()
    for question in questions:
        setattr(answers, question.name, answers.ask(device, question))
    return answers


def _processes(answers: Answers) -> tuple[DeviceProcess, ...] | None:
    # A device that supports no graphics processes has none; one whose list failed may have any.
    if answers.compute is None or (answers.graphics is None and "graphics" not in answers.unsupported):
        return None
    found = (*answers.compute, *(answers.graphics or ()))
    return tuple(sorted(found, key=lambda process: (process.pid, process.kind is ProcessKind.GRAPHICS)))
