"""Ask one device everything, and make a reading of what it answered."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from footlights.devices import health
from footlights.devices.driver import DriverError, Memory, MigAttributes, RemappedRows, UnsupportedError
from footlights.devices.reading import DeviceHealth, DeviceProcess, DeviceReading, HealthReason, ProcessKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.devices.driver import DriverDevice
    from footlights.devices.kinds import DeviceKind

# Boards by name, where the driver has no plain answer: NVIDIA's Video Encode and Decode GPU Support Matrix, the Ampere
# and Hopper white papers, and the MIG user guide.
_DATA_CENTRE_WITHOUT_NVENC = re.compile(
    r"\b(A100X?|A800|A30X?|H100|H800|H200|H20|GH200|B100|B200|B300|GB200|GB300|CMP 170HX)\b"
)
_SMALL_WITHOUT_NVENC = re.compile(r"\bGeForce (MX\d{3}|GT 10[13]0)\b")
_WITHOUT_RAY_TRACING = re.compile(r"\b(A100X?|A800|A30X?|H100|H800|H200|H20|GH200|CMP 170HX)\b")


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

    def ask(self, device: DriverDevice, question: str) -> Any:
        """Put one question and remember how it went. A lost GPU is not asked again: each call may take seconds."""
        if self.lost:
            return None
        try:
            return device.ask(question)
        except UnsupportedError:
            self.unsupported.add(question)
        except DriverError as error:
            self.failures[question] = error
        return None

    @property
    def lost(self) -> bool:
        """Whether the GPU said that it is off the bus."""
        return any(error.code == "GPU_IS_LOST" for error in self.failures.values())


_LOAD: Final = ("memory", "utilization_percent", "encoder_sessions", "compute", "graphics")
_ERRORS: Final = ("ecc_corrected", "ecc_uncorrected", "retired_pages", "retired_pages_pending", "remapped_rows")
_GPU: Final = ("name", "pci_bus_id", *_LOAD, "encoder_capacity", "graphics_allowed", *_ERRORS, "recovery_action")
INSTANCE: Final = ("name", "mig_attributes", *_LOAD)
"""What can be asked of a MIG instance; error counters are kept by its GPU."""


def gather(device: DriverDevice, questions: Sequence[str] = _GPU) -> Answers:
    """Ask a device all of ``questions``."""
    answers = Answers()
    for question in questions:
        setattr(answers, question, answers.ask(device, question))
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
        encoder_capacity_percent=answers.encoder_capacity,
        processes=_processes(answers),
        graphics=answers.graphics_allowed is not False,
        encoder=_has_encoder(name, refused="encoder_capacity" in answers.unsupported),
        health=verdict,
        health_reasons=reasons,
        pci_bus_id=answers.pci_bus_id,
        note=_note(name),
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
        encoder_capacity_percent=None,
        processes=_processes(answers),
        graphics=profile is not None and _profile_draws(profile),
        encoder=answers.mig_attributes is not None and answers.mig_attributes.encoders > 0,
        health=health.worst(parent.health, verdict),
        health_reasons=parent.health_reasons + tuple(r for r in reasons if r not in parent.health_reasons),
        parent_uuid=parent.uuid,
        mig_profile=profile,
    )


def mig_unknown(whole: DeviceReading) -> DeviceReading:
    """A GPU of which it is not known whether it is cut into MIG instances."""
    text = "the driver does not say whether it is in MIG mode; run the agent as root, or see dmesg"
    reason = HealthReason("MIG_MODE_UNKNOWN", text)
    return replace(
        whole,
        health=health.worst(whole.health, DeviceHealth.UNHEALTHY),
        health_reasons=(reason, *whole.health_reasons),
    )


def last_known(last_seen: DeviceReading, verdict: DeviceHealth, reason: HealthReason) -> DeviceReading:
    """A device that cannot be read now: who it was, and nothing that it measured then."""
    return replace(
        last_seen,
        memory_free_bytes=None,
        utilization_percent=None,
        encoder_sessions=None,
        encoder_capacity_percent=None,
        processes=None,
        health=verdict,
        health_reasons=(reason,),
    )


def _processes(answers: Answers) -> tuple[DeviceProcess, ...] | None:
    # A device that supports no graphics processes has none; one whose list failed may have any.
    if answers.compute is None or (answers.graphics is None and "graphics" not in answers.unsupported):
        return None
    found = (*answers.compute, *(answers.graphics or ()))
    return tuple(sorted(found, key=lambda process: (process.pid, process.kind is ProcessKind.GRAPHICS)))


def _has_encoder(name: str, *, refused: bool) -> bool:
    """Whether a GPU has a hardware video encoder. ``refused``: the driver does not support asking for its capacity.

    Its other answers are no proof (a capacity of 0 is also a busy encoder), so boards known to have none are named.
    Another board is believed to have one: a wrong yes fails visibly at the launch, a wrong no hides a working GPU.
    """
    if refused:
        return False
    return not (_DATA_CENTRE_WITHOUT_NVENC.search(name) or _SMALL_WITHOUT_NVENC.search(name))


def _profile_draws(profile: str) -> bool:
    """Whether a MIG profile offers graphics: only those marked ``+gfx`` do."""
    return "gfx" in profile.split("+")[1:]


def _note(name: str) -> str:
    """A sentence on what a board lacks that its capabilities cannot say; empty for most."""
    if _WITHOUT_RAY_TRACING.search(name):
        return "no ray-tracing cores: Kit's RTX renderer does not run on it"
    return ""
