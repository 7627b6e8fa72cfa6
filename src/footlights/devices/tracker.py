"""Reads all GPUs through a driver, and remembers them, so that a GPU which vanishes is reported lost."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypedDict

from footlights.devices import answers, xids
from footlights.devices.driver import Driver, DriverDevice, DriverError, DriverGoneError, Unanswered
from footlights.devices.reading import DeviceHealth, DeviceInventory, DeviceReading, HealthReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from footlights.devices.kinds import DeviceKind

_log = logging.getLogger(__name__)


class TrackingSettings(TypedDict, total=False):
    """The settings of `TrackedDevices` that every source of devices hands on."""

    timeout_s: float
    reopen_after_s: float
    xid_quarantine_s: float
    clock: Callable[[], float]


class TrackedDevices:
    """`Devices` over a `Driver`, which is asked by one thread at a time.

    A GPU in MIG mode is not offered itself, its instances are. An instance that an operator destroyed is gone; a GPU
    (with its instances) that was seen and is not enumerated any more is LOST until it is back or forgotten.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        gpu_kind: DeviceKind,
        instance_kind: DeviceKind,
        timeout_s: float = 30.0,
        reopen_after_s: float = 30.0,
        xid_quarantine_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._driver = driver
        self._gpu_kind = gpu_kind
        self._instance_kind = instance_kind
        self._timeout_s = timeout_s
        self._reopen_after_s = reopen_after_s
        self._xid_quarantine_s = xid_quarantine_s
        self._clock = clock
        self._turn = threading.Lock()
        self._taken: float | None = None
        """Since when a read has its turn; None where none has."""
        self._seen: dict[str, DeviceReading] = {}
        self._mig_enabled: dict[str, bool] = {}
        self._xids: dict[str, dict[int, float]] = {}
        self._reopen_at: float | None = None
        """When to open the driver again, while a GPU is missing."""

    def read(self) -> DeviceInventory:
        """Read every device now; see `Devices.read`. Without a driver the notes say why there is no GPU."""
        with self._my_turn():
            return self._read(only=None)

    def read_one(self, uuid: str) -> DeviceReading:
        """Read one device afresh; the other GPUs are identified but not asked anything else."""
        with self._my_turn():
            inventory = self._read(only=uuid)
        for reading in inventory.devices:
            if reading.uuid == uuid:
                return reading
        why = f" ({'; '.join(inventory.notes)})" if inventory.notes else ""
        raise LookupError(f"no device {uuid} on this machine{why}")

    def forget(self, uuid: str) -> None:
        """Stop reporting a lost device, and the MIG instances cut from it."""
        with self._my_turn():
            for known, reading in list(self._seen.items()):
                if uuid in (known, reading.parent_uuid):
                    del self._seen[known]
            self._xids.pop(uuid, None)
            self._mig_enabled.pop(uuid, None)

    def close(self) -> None:
        """Close the driver; the next read opens it again."""
        with self._my_turn():
            self._driver.close()

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        # Of a driver that hangs everybody is told at once, and not each after a wait of its own.
        left_s = self._timeout_s if self._taken is None else self._taken + self._timeout_s - time.monotonic()
        if not self._turn.acquire(timeout=max(0.0, left_s)):
            raise TimeoutError(
                f"the GPU driver has not answered an earlier read for {self._timeout_s:g} s; it may hang, see dmesg"
            )
        self._taken = time.monotonic()
        try:
            yield
        finally:
            self._taken = None
            self._turn.release()

    def _read(self, only: str | None) -> DeviceInventory:
        if self._reopen_at is not None and self._clock() >= self._reopen_at:
            self._reopen_at = None
            self._driver.close()
        try:
            self._driver.open()
            try:
                return self._read_open(only)
            except DriverGoneError as error:
                # A driver that was restarted refuses handles from before; opened again it may well answer.
                _log.info("reopening the GPU driver: %s", error)
                self._driver.close()
                self._driver.open()
                return self._read_open(only)
        except DriverGoneError as error:
            self._driver.close()
            return DeviceInventory(devices=tuple(self._lost(frozenset(), only)), notes=(str(error),))

    def _read_open(self, only: str | None) -> DeviceInventory:
        notes: list[str] = []
        driver_version, library_version = self._driver.versions()
        devices: list[DeviceReading] = []
        present: set[str] = set()
        self._collect_xids()
        for index, device in enumerate(self._gpus(notes)):
            uuid = _identify(index, device, notes)
            if uuid is None or isinstance(device, Unanswered):
                continue
            found = self._survey(uuid, index, device, only, notes)
            if found is not None:
                present.add(uuid)
                devices.extend(found)
        self._remember(devices, present, only)
        lost = self._lost(present, only)
        missing = self._lost(present, None) or any(d.health is DeviceHealth.LOST for d in devices)
        if not missing:
            self._reopen_at = None
        elif self._reopen_at is None:
            self._reopen_at = self._clock() + self._reopen_after_s
        notes.extend(self._driver.notes())
        return DeviceInventory((*devices, *lost), driver_version, library_version, tuple(notes))

    def _gpus(self, notes: list[str]) -> Sequence[DriverDevice | Unanswered]:
        try:
            return self._driver.gpus()
        except DriverError as error:
            notes.append(f"the driver cannot list its GPUs: {error}")
            return ()

    def _survey(
        self, uuid: str, index: int, device: DriverDevice, only: str | None, notes: list[str]
    ) -> list[DeviceReading] | None:
        """Readings of one GPU or of its instances; None where it counts as missing."""
        known_instances = [r for r in self._seen.values() if r.parent_uuid == uuid]
        mode = answers.Answers()
        enabled = mode.ask(device, "mig_enabled")
        unread = bool(enabled is None and mode.failures)
        if unread:
            enabled = self._mig_enabled.get(uuid, False)
        self._mig_enabled[uuid] = bool(enabled)
        if enabled:
            try:
                instances = _identified_instances(device, notes)
            except DriverError as error:
                notes.append(f"the MIG instances of GPU {uuid} cannot be listed: {error}")
                if error.code == "GPU_IS_LOST":
                    return None
                reason = HealthReason("QUERY_FAILED", str(error))
                return [answers.last_known(r, DeviceHealth.UNHEALTHY, reason) for r in known_instances]
        else:
            instances = []
        if only not in (None, uuid, *(found for found, _ in instances), *(r.uuid for r in known_instances)):
            return []
        gathered = answers.gather(device)
        gathered.failures.update(mode.failures)
        xids = self._current_xids(uuid)
        whole = answers.gpu_reading(uuid, index, gathered, kind=self._gpu_kind, xids=xids)
        if whole.health is DeviceHealth.LOST:
            if known_instances:
                return None
            return [answers.last_known(self._seen.get(uuid, whole), DeviceHealth.LOST, whole.health_reasons[0])]
        if not enabled:
            # Offering the whole of a GPU that may be cut up would be a guess.
            shown = answers.mig_unknown(whole) if unread else whole
            return [shown] if only in (None, uuid) else []
        return [
            answers.instance_reading(found, whole, answers.gather(i, answers.INSTANCE), kind=self._instance_kind)
            for found, i in instances
            if only is None or only == found
        ]

    def _remember(self, devices: Sequence[DeviceReading], present: set[str], only: str | None) -> None:
        if only is None:
            # What was cut out of a GPU that is there was changed by an operator: it is not lost.
            for known, reading in list(self._seen.items()):
                if (reading.parent_uuid or known) in present:
                    del self._seen[known]
        self._seen.update((d.uuid, d) for d in devices if d.health is not DeviceHealth.LOST or d.uuid not in self._seen)

    def _lost(self, present: frozenset[str] | set[str], only: str | None) -> list[DeviceReading]:
        reason = HealthReason("GPU_IS_LOST", "was here and is not listed by the driver any more; see dmesg")
        return [
            answers.last_known(reading, DeviceHealth.LOST, reason)
            for known, reading in self._seen.items()
            if (reading.parent_uuid or known) not in present and only in (None, known)
        ]

    def _collect_xids(self) -> None:
        now = self._clock()
        for uuid, xid in self._driver.critical_events():
            _log.warning("GPU %s reports XID %d", uuid, xid)
            if xids.matters(xid):
                self._xids.setdefault(uuid, {})[xid] = now

    def _current_xids(self, uuid: str) -> list[int]:
        since = self._clock() - self._xid_quarantine_s
        kept = {xid: at for xid, at in self._xids.get(uuid, {}).items() if at > since}
        self._xids[uuid] = kept
        return sorted(kept)


def _identify(index: int, device: DriverDevice | Unanswered, notes: list[str]) -> str | None:
    if isinstance(device, Unanswered):
        notes.append(f"GPU {index} cannot be addressed: {device.error}")
        return None
    try:
        return device.uuid()
    except DriverError as error:
        notes.append(f"GPU {index} does not say who it is: {error}")
        return None


def _identified_instances(device: DriverDevice, notes: list[str]) -> list[tuple[str, DriverDevice]]:
    found: list[tuple[str, DriverDevice]] = []
    for position, instance in enumerate(device.mig_instances()):
        uuid = _identify(position, instance, notes)
        if uuid is not None:
            found.append((uuid, instance))
    return found
