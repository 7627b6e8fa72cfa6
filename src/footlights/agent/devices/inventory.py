"""The node's devices: read from time to time and before each launch, off the event loop, each read with a deadline."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeVar

import structlog

from footlights.agent.launches.step import OnDevice
from footlights.agent.v1.node_pb2 import Device
from footlights.devices.admission import Holding, Shared, memory_of, memory_used
from footlights.devices.foreign import Foreign, Tolerance, foreign, pids_are_the_hosts
from footlights.devices.reading import DeviceHealth, DeviceInventory, DeviceReading, Devices
from footlights.protocol import enums
from footlights.protocol.output import encodable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Set

T = TypeVar("T")

_MEMORY_STEP = 64 << 20
_UTILIZATION_STEP = 20
_LOST_AFTER = 2
"""Readings in a row: a driver that is being restarted loses every GPU for one."""
_NO_HOLDINGS: Mapping[str, Collection[Holding]] = {}
_log = structlog.get_logger(__name__)


class DevicesSilent(Exception):
    """The devices cannot be read now; the message says why."""


async def off_loop(call: Callable[[], T], timeout: float) -> T:
    """Run a blocking call in a daemon thread and wait ``timeout`` seconds for it. Raises TimeoutError: it goes on.

    A call that is stuck in a driver holds up neither the loop nor the process's exit.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            return  # the loop is closed: the caller is gone

    threading.Thread(target=run, name="footlights-off-loop", daemon=True).start()
    async with asyncio.timeout(timeout):
        return await answer


class DeviceWatch:
    """The newest reading of every device, and judgements over several readings."""

    def __init__(
        self,
        devices: Devices,
        *,
        timeout_s: float,
        tolerance: Tolerance,
        slots_per_device: int = 1,
        encoder_sessions: int | None = None,
        pids_visible: bool | None = None,
    ) -> None:
        self._devices = devices
        self._timeout_s = timeout_s
        self._tolerance = tolerance
        self._slots = slots_per_device
        self._encoder_sessions = encoder_sessions
        self._pids_visible = pids_are_the_hosts() if pids_visible is None else pids_visible
        self._present: deque[frozenset[str]] = deque(maxlen=_LOST_AFTER)
        self._reading = asyncio.Lock()
        self.inventory = DeviceInventory(())
        self.serial = 0
        self.silence = ""
        """Why the newest reading failed; empty where it did not."""

    async def refresh(self) -> DeviceInventory:
        """Read every device now, one reader at a time. Raises DevicesSilent: nothing can be said of the devices now."""
        async with self._reading:
            try:
                found = await self._ask(self._devices.read, "devices_unreadable")
            except DevicesSilent as error:
                self.silence = str(error)
                raise
            self.silence = ""
            self._take(found)
            return found

    async def read_one(self, uuid: str) -> DeviceReading | None:
        """Read one device afresh; None where there is no such device. Raises DevicesSilent."""

        def read() -> DeviceReading | None:
            try:
                return self._devices.read_one(uuid)
            except LookupError:
                return None

        return await self._ask(read, "device_unreadable", device=uuid)

    async def _ask(self, read: Callable[[], T], event: str, **fields: str) -> T:
        try:
            return await off_loop(read, self._timeout_s)
        except TimeoutError as error:
            raise DevicesSilent(f"the device driver has not answered for {self._timeout_s:g} s; see dmesg") from error
        except Exception as error:
            _log.exception(event, **fields)
            raise DevicesSilent(f"the devices cannot be read: {error or type(error).__name__}") from error

    def foreign(self, reading: DeviceReading, own_pids: Set[int]) -> Foreign:
        """Judge which other processes are on a device."""
        return foreign(reading, own_pids, tolerance=self._tolerance, pids_visible=self._pids_visible)

    def lost(self, uuid: str) -> str:
        """Why a launch cannot continue on a device; empty while it can. A driver that does not answer is no proof."""
        if len(self._present) < _LOST_AFTER or any(uuid in present for present in self._present):
            return ""
        reading = next((reading for reading in self.inventory.devices if reading.uuid == uuid), None)
        if reading is None or not reading.health_reasons:
            return f"The device {uuid} is gone."
        return f"The device {uuid} is lost: {reading.health_reasons[0].message}."

    def lists(self, reading: DeviceReading, pids: Set[int]) -> frozenset[int]:
        """Which of our pids a reading lists; none where its pids are not of our namespace."""
        if reading.processes is None or not self._pids_are_ours(reading):
            return frozenset()
        return frozenset(pids & {process.pid for process in reading.processes})

    def locate(self, uuid: str, pids: Set[int]) -> tuple[OnDevice, str]:
        """Where the driver lists a launch's processes, and a sentence where they are on another device than its own.

        What is tolerated of others' processes is a glance: too little there to be a wrong place.
        """
        elsewhere = glance = ""
        here = False
        known = False
        for reading in self.inventory.devices:
            if not reading.kind.traits.lists_processes or reading.processes is None or not self._pids_are_ours(reading):
                continue
            known = known or reading.uuid == uuid
            ours = self.lists(reading, pids)
            if ours and reading.uuid == uuid:
                here = True
            elif ours:
                size = memory_of(reading, ours)
                much = f" with {size >> 20} MiB" if size is not None else ""
                text = f"pid {min(ours)} of the application is on device {reading.uuid}{much}, its lease is for {uuid}"
                if size is not None and size <= self._tolerance.memory_bytes:
                    glance = glance or text
                else:
                    elsewhere = elsewhere or text
        if elsewhere:
            return OnDevice.WRONG, elsewhere
        if not known:
            return OnDevice.UNKNOWN, glance
        return (OnDevice.RIGHT if here else OnDevice.NOWHERE), glance

    def shared(self, reading: DeviceReading, holdings: Collection[Holding]) -> Shared:
        """What other launches of ours are on a device."""
        return Shared(holdings, self._pids_are_ours(reading), self._encoder_limit(reading))

    def to_protos(self, own_pids: Set[int], holdings: Mapping[str, Collection[Holding]] = _NO_HOLDINGS) -> list[Device]:
        """The newest reading for the control plane; ``holdings`` are our launches', by device."""
        return [self._to_proto(reading, own_pids, holdings.get(reading.uuid, ())) for reading in self.inventory.devices]

    def forget(self, uuid: str) -> None:
        """Stop reporting a device that is gone for good."""
        self._devices.forget(uuid)

    def unexplained(self, own_pids: Set[int]) -> bool:
        """Whether a process that is not among ``own_pids`` is on a device."""
        return any(
            process.pid not in own_pids for reading in self.inventory.devices for process in reading.processes or ()
        )

    def _pids_are_ours(self, reading: DeviceReading) -> bool:
        return self._pids_visible is True or reading.kind.traits.simulated

    def _take(self, found: DeviceInventory) -> None:
        if found.driver_version is not None:
            self._present.append(frozenset(r.uuid for r in found.devices if r.health is not DeviceHealth.LOST))
        self.inventory = found
        self.serial += 1

    def _encoder_limit(self, reading: DeviceReading) -> int | None:
        return self._encoder_sessions if reading.encoder else None

    def _to_proto(self, reading: DeviceReading, own_pids: Set[int], holdings: Collection[Holding]) -> Device:
        device = Device(
            uuid=reading.uuid,
            kind=enums.number_of(Device.Kind, reading.kind.value),
            name=encodable(reading.name),
            index=reading.index,
            graphics=reading.graphics,
            encoder=reading.encoder,
            health=enums.number_of(Device.Health, reading.health.value),
            parent_uuid=reading.parent_uuid or "",
            mig_profile=reading.mig_profile or "",
            pci_bus_id=reading.pci_bus_id or "",
            memory_total_bytes=reading.memory_total_bytes,
            memory_free_bytes=reading.memory_free_bytes,
            utilization_percent=reading.utilization_percent,
            memory_used_bytes=memory_used(reading, holdings) if self._pids_are_ours(reading) else None,
            encoder_sessions=reading.encoder_sessions,
            encoder_capacity_percent=reading.encoder_capacity_percent,
            encoder_session_limit=self._encoder_limit(reading),
            slots=self._slots,
            processes_known=reading.processes is not None,
            note=encodable(reading.note),
        )
        driven = reading.kind.traits.lists_processes
        if self.silence and driven and reading.health in (DeviceHealth.OK, DeviceHealth.DEGRADED):
            device.health = Device.UNHEALTHY
            device.health_reasons.add(reason="DRIVER_SILENT", message=self.silence)
        for reason in reading.health_reasons:
            device.health_reasons.add(reason=reason.reason, message=encodable(reason.message))
        others = self.foreign(reading, own_pids)
        for process in others.processes:
            device.foreign_processes.add(
                pid=process.pid, name=encodable(process.name or ""), used_memory_bytes=process.used_memory_bytes
            )
        notes = [device.note] if device.note else []
        if others.why:
            device.processes_known = False
            notes.append(others.why)
        if others.tolerated:
            listed = ", ".join(f"{process.name or 'pid'} ({process.pid})" for process in others.tolerated[:10])
            more = f" and {len(others.tolerated) - 10} more" if len(others.tolerated) > 10 else ""
            notes.append(f"shared with small processes that are tolerated: {listed}{more}")
        device.note = encodable("; ".join(notes))
        return device


def worth_reporting(reported: list[Device], now: list[Device]) -> bool:
    """Whether devices have changed by more than the noise of their figures."""
    if len(reported) != len(now):
        return True
    return any(_differs(before, after) for before, after in zip(reported, now, strict=True))


def _differs(before: Device, after: Device) -> bool:
    plain_before, plain_after = Device(), Device()
    plain_before.CopyFrom(before)
    plain_after.CopyFrom(after)
    for device in (plain_before, plain_after):
        if device.encoder_capacity_percent:  # nothing left is no noise
            device.ClearField("encoder_capacity_percent")
        device.ClearField("memory_used_bytes")
        device.ClearField("memory_free_bytes")
        device.ClearField("utilization_percent")
        for process in device.foreign_processes:
            process.ClearField("used_memory_bytes")
    if plain_before != plain_after:
        return True
    if _known(before) != _known(after):
        return True
    step = max(_MEMORY_STEP, after.memory_total_bytes // 20)
    if abs(before.memory_free_bytes - after.memory_free_bytes) >= step:
        return True
    if abs(before.memory_used_bytes - after.memory_used_bytes) >= step:
        return True
    return abs(before.utilization_percent - after.utilization_percent) >= _UTILIZATION_STEP


def _known(device: Device) -> tuple[bool, ...]:
    """Which of the figures with noise are known."""
    return (
        device.HasField("memory_free_bytes"),
        device.HasField("memory_used_bytes"),
        device.HasField("utilization_percent"),
        device.HasField("encoder_capacity_percent"),
    )
