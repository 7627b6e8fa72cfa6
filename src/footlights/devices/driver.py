"""What a driver can be asked, and how it says no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Memory:
    """Sizes in bytes. ``free`` is what a new process can have: memory the driver reserves is not free."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class RemappedRows:
    """Rows of GPU memory replaced by spares (Ampere and later)."""

    correctable: int
    uncorrectable: int
    pending: bool
    """A remap waits for the next reset of the GPU."""
    failed: bool
    """A remap failed: out of spares. NVIDIA asks for the board to be returned."""


@dataclass(frozen=True, slots=True)
class MigAttributes:
    """What was cut out of a GPU for one MIG instance."""

    profile: str
    """As ``nvidia-smi mig`` prints it: ``1g.10gb``, ``3g.40gb+me``, ``1g.24gb+gfx``."""
    encoders: int


class DriverProblem(Exception):
    """The driver did not answer ``call``; ``code`` is NVML's name without its prefix (``GPU_IS_LOST``)."""

    def __init__(self, call: str, code: str, message: str = "") -> None:
        super().__init__(f"{call}: {message or code}")
        self.call = call
        self.code = code


class DriverError(DriverProblem):
    """The driver answered a call with an error."""


class UnsupportedError(DriverError):
    """This device does not support the call, or this driver does not have it."""


class DriverGoneError(DriverProblem):
    """The driver as a whole does not answer: not installed, not loaded, replaced, or restarted since it was opened."""


class DriverDevice(Protocol):
    """One GPU or MIG instance that can be asked. Every method may raise `DriverError`; nothing is remembered."""

    def uuid(self) -> str:
        """Who the device is."""

    def ask(self, question: str) -> Any:
        """Put one question, named as the member of `answers.Answers` that takes the answer, or ``mig_enabled``."""

    def mig_instances(self) -> Sequence[DriverDevice]:
        """The instances that a GPU in MIG mode is cut into."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A position in the driver's enumeration whose GPU cannot be addressed."""

    index: int
    error: DriverError


class Driver(Protocol):
    """A way to the GPUs of one machine. Not thread-safe: its user takes turns."""

    def open(self) -> None:
        """Open what is needed; a second call does nothing. Raises DriverGoneError, which says why and what to do."""

    def close(self) -> None:
        """Let go of the driver; `open` may follow. Never raises."""

    def versions(self) -> tuple[str | None, str | None]:
        """Version of the driver and of its library."""

    def gpus(self) -> Sequence[DriverDevice | Unanswered]:
        """The GPUs in the driver's order. Raises DriverError: the driver cannot even count them."""

    def critical_events(self) -> Sequence[tuple[str, int]]:
        """(GPU uuid, XID) of the critical errors since the last call; does not wait."""

    def notes(self) -> Sequence[str]:
        """Sentences for an operator about the driver itself, such as calls it does not have."""
