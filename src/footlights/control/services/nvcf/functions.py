"""FunctionService: applications as the functions of NVCF's control plane, and where each can run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import structlog

from footlights import errors, scheduler
from footlights.control import stored
from footlights.control.scheduling import guard, quarantine, views
from footlights.control.services.nvcf import function_ids
from footlights.control.services.sessions import resolve
from footlights.launch.launchers import placed_by
from footlights.nvcf.v1 import functions_pb2
from footlights.scheduler.unserved import able
from footlights.store import applications as rows
from footlights.store import pools
from footlights.store.nodes import fleet
from footlights.v1 import application_pb2, pool_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.auth.roles import Caller
    from footlights.control.call.context import Call
    from footlights.control.services.nvcf.function_ids import FunctionVersion
    from footlights.control.settings import ServerSettings
    from footlights.store import Store, Transaction
    from footlights.store.schema import ApplicationRow

log = structlog.get_logger(__name__)
Status = functions_pb2.Function.Status


class FunctionService:
    """Lists functions."""

    def __init__(self, store: Store, settings: ServerSettings, clock: Callable[[], datetime]) -> None:
        self._store, self._settings, self._clock = store, settings, clock
        self._given = settings.given_functions

    async def find(self, function: str, version: str) -> FunctionVersion:
        """Return what the ids of a function and of its version, which may be empty, stand for. Raises NotFound."""
        names = await self._store.read(rows.names_by_application)
        return function_ids.find(names, self._given, function, version)

    async def list_functions(
        self, request: functions_pb2.ListFunctionsRequest, call: Call
    ) -> functions_pb2.ListFunctionsResponse:
        """Return all functions."""
        return functions_pb2.ListFunctionsResponse(functions=await self._shown(call, lambda _: True))

    async def list_function_versions(
        self, request: functions_pb2.ListFunctionVersionsRequest, call: Call
    ) -> functions_pb2.ListFunctionVersionsResponse:
        """Return the versions of one function."""
        one = await self.find(request.function_id, "")
        found = await self._shown(call, lambda each: each.function_id == one.function_id, one.application)
        return functions_pb2.ListFunctionVersionsResponse(functions=found)

    async def get_function(
        self, request: functions_pb2.GetFunctionRequest, call: Call
    ) -> functions_pb2.GetFunctionResponse:
        """Return one version of a function."""
        wanted = await self.find(request.function_id, request.version_id)
        [found] = await self._shown(call, wanted.__eq__, wanted.application)
        return functions_pb2.GetFunctionResponse(function=found)

    async def get_deployment(
        self, request: functions_pb2.GetDeploymentRequest, call: Call
    ) -> functions_pb2.GetDeploymentResponse:
        """Return where one function can run."""
        found = await self.find(request.function_id, request.version_id)

        def read(tx: Transaction) -> tuple[scheduler.Wish | None, int]:
            return self._wish(tx, found, call.caller), _kept_running(tx, found)

        wish, kept = await self._store.read(read)
        fleet_now = await self._fleet()
        return functions_pb2.GetDeploymentResponse(
            deployment=functions_pb2.Deployment(
                function_id=found.function_id,
                function_version_id=found.version_id,
                function_name=found.name,
                function_status=fleet_now.status(wish),
                deployment_specifications=[
                    functions_pb2.Deployment.Specification(
                        gpu=name,
                        instance_type=name,
                        min_instances=0 if number else kept,
                        max_instances=count,
                        max_request_concurrency=1,
                    )
                    for number, (name, count) in enumerate(fleet_now.rooms(wish).most_common())
                ],
            )
        )

    async def _shown(
        self, call: Call, wanted: Callable[[FunctionVersion], bool], application: str = ""
    ) -> list[functions_pb2.Function]:
        """Return those of all functions, or of an application's, that are wanted."""

        def read(tx: Transaction) -> list[tuple[FunctionVersion, ApplicationRow | None, scheduler.Wish | None]]:
            every = function_ids.every(rows.names_by_application(tx), self._given)
            chosen = [each for each in every if wanted(each)]
            known = {row.application: row for row in rows.every(tx)}
            wishes = self._wishes(tx, call.caller, application)
            return [
                (
                    each,
                    known.get(each.application),
                    self._wish(tx, each, call.caller) if each.profile else wishes.get((each.application, each.version)),
                )
                for each in chosen
            ]

        found = await self._store.read(read)
        fleet_now = await self._fleet()
        return [
            functions_pb2.Function(
                id=each.function_id,
                version_id=each.version_id,
                name=each.name,
                status=fleet_now.status(wish),
                function_type="STREAMING",
                description=row.description if row else "",
                tags=row.tags if row else (),
            )
            for each, row, wish in found
        ]

    def _wishes(self, tx: Transaction, caller: Caller, application: str) -> dict[tuple[str, str], scheduler.Wish]:
        """Return what each version and release needs, by application and name, where no profile changes it."""
        found: dict[tuple[str, str], scheduler.Wish] = {}
        for row in rows.every_version(tx, application):
            version = stored.version(row.application, row.recipe, row.created_time)
            needs = application_pb2.Needs()
            needs.CopyFrom(version.needs)
            needs.slots = needs.slots or resolve.DEFAULT_SLOTS
            resolve.isolate(needs, caller, self._settings.least_isolation)
            key = row.application, row.version
            if not _waits_for_arguments(version):
                found[key] = views.needs_wish("", key, placed_by(version), needs, {})
        for release in rows.every_release(tx, application):
            if (wish := found.get((release.application, release.version))) is not None:
                found[release.application, release.release] = wish
        return found

    async def _fleet(self) -> _Fleet:
        def read(tx: Transaction) -> list[scheduler.NodeView]:
            now = self._clock()
            known = guard.load(tx, now=now)
            return views.node_views(fleet.members(tx), known.devices() | quarantine.load(tx, now=now))

        return _Fleet(await self._store.read(read))

    def _wish(self, tx: Transaction, function: FunctionVersion, caller: Caller) -> scheduler.Wish | None:
        """Return what a function needs; None where nothing can be started as it is."""
        try:
            found = resolve.resolve(
                tx,
                function.application,
                function.version,
                function.profile,
                installation=self._settings.installation_limits,
            )
        except errors.Error as error:
            log.debug("function_unusable", function=function.name, error=error.message)
            return None
        if _waits_for_arguments(found.version):
            return None
        resolve.isolate(found.needs, caller, self._settings.least_isolation)
        return views.needs_wish("", (function.application, found.version.version), found.launcher, found.needs, {})


def _kept_running(tx: Transaction, function: FunctionVersion) -> int:
    """Return how many instances pools keep for a function, at least."""

    def meant(name: str) -> str:
        release = rows.release(tx, function.application, name)
        return release.version if release else name

    found = [pool_pb2.Pool.FromString(row.definition) for row in pools.of(tx, function.application)]
    return sum(
        each.size if each.HasField("size") else each.min_size
        for each in found
        if each.profile == function.profile
        and meant(each.application_version or resolve.DEFAULT_RELEASE) == meant(function.version)
    )


class _Fleet:
    """The nodes as they are now."""

    def __init__(self, nodes: Sequence[scheduler.NodeView]) -> None:
        self._nodes = nodes
        self._all = scheduler.Index(nodes)
        self._ready = scheduler.Index(each for each in nodes if _takes_sessions(each))

    def status(self, wish: scheduler.Wish | None) -> functions_pb2.Function.Status.ValueType:
        if wish is None or not self._all.could_serve(wish):
            return Status.INACTIVE
        return Status.ACTIVE if self._ready.could_serve(wish) else Status.DEGRADED

    def rooms(self, wish: scheduler.Wish | None) -> Counter[str]:
        """Return how many sessions there would be room for, by the name of the device."""
        found: Counter[str] = Counter()
        for node in self._nodes if wish else ():
            assert wish is not None
            if not scheduler.Index((node,)).could_serve(wish):
                continue
            for device in node.devices:
                if able(wish, device, device.memory_total_bytes):
                    found[device.name] += _room(wish, device)
        return found


def _waits_for_arguments(version: application_pb2.Version) -> bool:
    """Return whether a session must give an argument, which portals cannot. A secret one may be the profile's."""
    return any(each.required and not each.secret and not each.HasField("default_value") for each in version.arguments)


def _takes_sessions(node: scheduler.NodeView) -> bool:
    return node.connected and node.accepted and not node.cordoned and not node.draining


def _room(wish: scheduler.Wish, device: scheduler.DeviceView) -> int:
    room = device.slots // max(wish.slots, 1)
    if wish.min_memory_bytes and device.memory_total_bytes is not None:
        room = min(room, device.memory_total_bytes // wish.min_memory_bytes)
    return room
