"""What a driver can be asked, and how it says no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.devices.reading import DeviceProcess

T = TypeVar("T")


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


class DriverError(Exception):
    """The driver answered ``call`` with an error; ``code`` is NVML's name without its prefix (``GPU_IS_LOST``)."""

    def __init__(self, call: str, code: str, message: str = "") -> None:
        super().__init__(f"{call}: {message or code}")
        self.call = call
        self.code = code


class UnsupportedError(DriverError):
    """This device does not support the call, or this driver does not have it."""


class DriverGoneError(DriverError):
    """The driver as a whole does not answer: not installed, not loaded, replaced, or restarted since it was opened."""


@dataclass(frozen=True, slots=True)
class DriverQuestion(Generic[T]):
    """One thing that a device can be asked; its answer has the type of the question."""

    name: str


NAME: Final[DriverQuestion[str]] = DriverQuestion("name")
PCI_BUS_ID: Final[DriverQuestion[str]] = DriverQuestion("pci_bus_id")
MEMORY: Final[DriverQuestion[Memory]] = DriverQuestion("memory")
UTILIZATION_PERCENT: Final[DriverQuestion[int]] = DriverQuestion("utilization_percent")
ENCODER_SESSIONS: Final[DriverQuestion[int]] = DriverQuestion("encoder_sessions")
ENCODER_CAPACITY: Final[DriverQuestion[int]] = DriverQuestion("encoder_capacity")
GRAPHICS_ALLOWED: Final[DriverQuestion[bool]] = DriverQuestion("graphics_allowed")
COMPUTE: Final[DriverQuestion[Sequence[DeviceProcess]]] = DriverQuestion("compute")
"""Processes that compute on it."""
GRAPHICS: Final[DriverQuestion[Sequence[DeviceProcess]]] = DriverQuestion("graphics")
"""Processes that draw on it."""
ECC_CORRECTED: Final[DriverQuestion[int]] = DriverQuestion("ecc_corrected")
ECC_UNCORRECTED: Final[DriverQuestion[int]] = DriverQuestion("ecc_uncorrected")
RETIRED_PAGES: Final[DriverQuestion[int]] = DriverQuestion("retired_pages")
RETIRED_PAGES_PENDING: Final[DriverQuestion[bool]] = DriverQuestion("retired_pages_pending")
REMAPPED_ROWS: Final[DriverQuestion[RemappedRows]] = DriverQuestion("remapped_rows")
RECOVERY_ACTION: Final[DriverQuestion[str]] = DriverQuestion("recovery_action")
MIG_ENABLED: Final[DriverQuestion[bool]] = DriverQuestion("mig_enabled")
MIG_ATTRIBUTES: Final[DriverQuestion[MigAttributes]] = DriverQuestion("mig_attributes")


class DriverDevice(Protocol):
    """One GPU or MIG instance that can be asked. Every method may raise `DriverError`; nothing is remembered."""

    def uuid(self) -> str:
        """Who the device is."""

    def ask(self, question: DriverQuestion[T]) -> T:
        """Put one question to the driver."""

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
