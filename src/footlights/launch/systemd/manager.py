"""The node's systemd, over D-Bus: org.freedesktop.systemd1(5)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbus_fast.aio import MessageBus
    from dbus_fast.message import Message

    from footlights.launch.systemd.unit import UnitSettings

CALL_TIMEOUT_S: Final = 25.0
_SERVICE: Final = "org.freedesktop.systemd1"
_PATH: Final = "/org/freedesktop/systemd1"
_MANAGER: Final = "org.freedesktop.systemd1.Manager"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_NO_SUCH_UNIT: Final = "org.freedesktop.systemd1.NoSuchUnit"
_UNIT_EXISTS: Final = "org.freedesktop.systemd1.UnitExists"


class SystemdError(Exception):
    """systemd did not do what it was asked, or did not answer. ``name`` is the D-Bus error; empty: no answer."""

    def __init__(self, message: str, *, name: str = "") -> None:
        super().__init__(message)
        self.name = name

    @property
    def unit_exists(self) -> bool:
        """Whether there is a unit of that name."""
        return self.name == _UNIT_EXISTS


@dataclass(frozen=True, slots=True)
class UnitState:
    """A unit as systemd sees it."""

    active: str
    """``activating``, ``active``, ``deactivating``, ``inactive``, ``failed``, …"""
    sub: str
    """The service's own state: ``running``, ``stop-sigterm``, ``stop-post``, …"""
    control_group: str
    """Its control group below the root; empty where it has none."""

    @property
    def lives(self) -> bool:
        """Whether it may have processes."""
        return self.active not in ("inactive", "failed")

    @property
    def records(self) -> bool:
        """Whether the application is gone, and what is left is the command that writes down how it ended."""
        return self.sub in ("stop-post", "final-watchdog", "final-sigterm", "final-sigkill")


class UnitManager(Protocol):
    """What is needed of systemd. Every call may raise SystemdError."""

    async def facts(self) -> tuple[str, str]:
        """Return the version and the features, as ``systemctl --version`` shows them."""

    async def start(self, units: Sequence[UnitSettings]) -> str:
        """Make and start the first of the units, which brings the others; return its job's result (``done``)."""

    async def stop(self, unit: str) -> None:
        """Begin to stop a unit; one that is not there is no error."""

    async def kill(self, unit: str, number: int) -> None:
        """Signal all processes of a unit; one that is not there is no error."""

    async def state(self, unit: str) -> UnitState | None:
        """Return the state of a unit; None where there is none."""

    async def processes(self, unit: str) -> frozenset[int]:
        """Return the pids of a unit's control group and those below it; none where there is no such unit."""

    async def find(self, pattern: str) -> list[str]:
        """Return the names of the units that live and match a pattern."""

    async def close(self) -> None:
        """Release the connection."""


class SystemBus:
    """Keeps the `UnitManager` protocol over one connection to the system bus, made again where it was lost."""

    def __init__(self, address: str = "") -> None:
        self._address = address
        self._bus: MessageBus | None = None
        self._connecting = asyncio.Lock()
        self._jobs: dict[str, asyncio.Future[str]] = {}
        self._starting = 0

    async def facts(self) -> tuple[str, str]:
        """Read two properties of the manager."""
        version, features = [await self._property(_PATH, _MANAGER, name) for name in ("Version", "Features")]
        return str(version), str(features)

    async def start(self, units: Sequence[UnitSettings]) -> str:
        """``StartTransientUnit``, then the end of its job."""
        first, *others = units
        body = [first.name, "fail", _pairs(first), [[unit.name, _pairs(unit)] for unit in others]]
        await self._connect()
        self._starting += 1
        try:
            answer = await self._call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
            return await self._job(str(answer[0]))
        finally:
            self._starting -= 1
            if self._starting == 0:
                self._jobs.clear()

    async def stop(self, unit: str) -> None:
        """``StopUnit``."""
        await self._call("StopUnit", "ss", [unit, "replace"], absent_is_fine=True)

    async def kill(self, unit: str, number: int) -> None:
        """``KillUnit``."""
        await self._call("KillUnit", "ssi", [unit, "all", number], absent_is_fine=True)

    async def state(self, unit: str) -> UnitState | None:
        """``GetUnit``, which loads nothing, and three properties."""
        answer = await self._call("GetUnit", "s", [unit], absent_is_fine=True)
        if answer is None:
            return None
        path = str(answer[0])
        try:
            active = await self._property(path, f"{_SERVICE}.Unit", "ActiveState")
            sub = await self._property(path, f"{_SERVICE}.Unit", "SubState")
            group = await self._property(path, f"{_SERVICE}.Service", "ControlGroup")
        except SystemdError as error:
            if error.name:  # it was unloaded between the calls
                return None
            raise
        return UnitState(active=str(active), sub=str(sub), control_group=str(group))

    async def processes(self, unit: str) -> frozenset[int]:
        """``GetUnitProcesses``."""
        answer = await self._call("GetUnitProcesses", "s", [unit], absent_is_fine=True)
        return frozenset(int(pid) for _, pid, _ in answer[0]) if answer else frozenset()

    async def find(self, pattern: str) -> list[str]:
        """``ListUnitsByPatterns``."""
        states = ["activating", "active", "deactivating", "reloading"]
        answer = await self._call("ListUnitsByPatterns", "asas", [states, [pattern]])
        return [str(unit[0]) for unit in answer[0]]

    async def close(self) -> None:
        """Disconnect."""
        bus, self._bus = self._bus, None
        if bus is not None and bus.connected:
            bus.disconnect()
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]

    async def _connect(self) -> MessageBus:
        async with self._connecting:
            if self._bus is not None and self._bus.connected:
                return self._bus
            try:
                from dbus_fast import BusType
                from dbus_fast.aio import MessageBus
            except ImportError:
                text = "the package dbus-fast is not installed: pip install 'footlights[systemd]'"
                raise SystemdError(text) from None
            try:
                bus = await MessageBus(self._address or None, bus_type=BusType.SYSTEM).connect()
            except Exception as error:  # the library raises what its address parser and its socket raise
                raise SystemdError(f"the system bus cannot be reached: {error or type(error).__name__}") from error
            bus.add_message_handler(self._hear)
            try:
                await self._subscribe(bus)
            except BaseException:
                # Without signals no job would be heard to end: the next call connects again.
                bus.disconnect()
                raise
            self._bus = bus
            return bus

    async def _subscribe(self, bus: MessageBus) -> None:
        rule = f"type='signal',sender='{_SERVICE}',interface='{_MANAGER}',member='JobRemoved'"
        await self._send(bus, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.AddMatch", rule)
        await self._send(bus, _SERVICE, _PATH, f"{_MANAGER}.Subscribe")

    def _hear(self, message: Message) -> None:
        if self._starting and message.member == "JobRemoved" and message.signature == "uoss":
            _, job, _, result = message.body
            future = self._job(job)
            if not future.done():
                future.set_result(result)

    def _job(self, path: str) -> asyncio.Future[str]:
        """Return the end of a job: it may be heard of before the call that made the job is answered."""
        return self._jobs.setdefault(path, asyncio.get_running_loop().create_future())

    async def _property(self, path: str, interface: str, name: str) -> Any:
        bus = await self._connect()
        answer = await self._send(bus, _SERVICE, path, f"{_PROPERTIES}.Get", interface, name)
        return answer[0].value

    async def _call(self, member: str, signature: str, body: list[Any], *, absent_is_fine: bool = False) -> Any:
        bus = await self._connect()
        try:
            return await self._send(bus, _SERVICE, _PATH, f"{_MANAGER}.{member}", *body, signature=signature)
        except SystemdError as error:
            if absent_is_fine and error.name == _NO_SUCH_UNIT:
                return None
            raise

    async def _send(
        self, bus: MessageBus, destination: str, path: str, method: str, *body: Any, signature: str = ""
    ) -> Any:
        from dbus_fast.constants import MessageType
        from dbus_fast.message import Message

        interface, _, member = method.rpartition(".")
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature or "s" * len(body),
            body=list(body),
        )
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                answer = await bus.call(message)
        except TimeoutError:
            raise SystemdError(f"systemd did not answer {member} within {CALL_TIMEOUT_S:g} s") from None
        except (OSError, EOFError) as error:
            raise SystemdError(f"the connection to the system bus was lost: {error}") from error
        if answer is None:
            raise SystemdError(f"the system bus did not answer {member}")
        if answer.message_type is MessageType.ERROR:
            said = str(answer.body[0]) if answer.body else str(answer.error_name)
            raise SystemdError(said, name=str(answer.error_name))
        return answer.body


def _pairs(unit: UnitSettings) -> list[list[Any]]:
    from dbus_fast.signature import Variant

    return [[name, Variant(signature, value)] for name, signature, value in unit.properties]
