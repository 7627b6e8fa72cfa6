"""ProfileService: named sets of needs and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from footlights import errors, ids
from footlights.control.call import bounds
from footlights.control.services.sessions import resolve
from footlights.protocol import times
from footlights.store import Store, Unit
from footlights.store import applications as rows
from footlights.v1 import profile_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from footlights.control.call.context import Call
    from footlights.control.signals import Signals
    from footlights.store.schema import ProfileRow

T = TypeVar("T")


class ProfileService:
    """Serves profiles."""

    def __init__(self, store: Store, bus: Signals, clock: Callable[[], datetime]) -> None:
        self._store, self._bus, self._clock = store, bus, clock

    async def list_profiles(
        self, request: profile_pb2.ListProfilesRequest, call: Call
    ) -> profile_pb2.ListProfilesResponse:
        """Return all profiles, or those that match an application."""
        found = [_message(row) for row in await self._store.read(rows.profiles)]
        if request.application:
            found = [profile for profile in found if resolve.matches(profile, request.application)]
        return profile_pb2.ListProfilesResponse(items=found)

    async def get_profile(self, request: profile_pb2.GetProfileRequest, call: Call) -> profile_pb2.Profile:
        """Return one profile."""
        row = await self._store.read(lambda tx: rows.profile(tx, request.profile))
        if row is None:
            raise _missing(request.profile)
        return _message(row)

    async def update_profile(self, request: profile_pb2.UpdateProfileRequest, call: Call) -> profile_pb2.Profile:
        """Not served yet."""
        raise errors.Unavailable("Not served yet.", reason=errors.LocalReason.NOT_SERVED)

    async def set_profile(self, request: profile_pb2.SetProfileRequest, call: Call) -> profile_pb2.Profile:
        """Create or replace a profile."""
        profile, now = request.profile, self._clock()
        ids.check_slug("profile.profile", profile.profile)
        for field, span in profile.limits.ListFields():
            bounds.bounded(f"profile.limits.{field.name}", span, fix="Leave it out instead.")
        profile.ClearField("updated_time")
        definition = profile.SerializeToString(deterministic=True)
        await self._write(lambda tx: rows.put_profile(tx, profile.profile, definition, now=now))
        profile.updated_time.CopyFrom(times.timestamp(now))
        return profile

    async def delete_profile(
        self, request: profile_pb2.DeleteProfileRequest, call: Call
    ) -> profile_pb2.DeleteProfileResponse:
        """Remove a profile."""
        if not await self._write(lambda tx: rows.remove_profile(tx, request.profile)):
            raise _missing(request.profile)
        return profile_pb2.DeleteProfileResponse()

    async def _write(self, unit: Unit[T]) -> T:
        answer = await self._store.write(unit)
        self._bus.catalogue.publish()
        return answer


def _message(row: ProfileRow) -> profile_pb2.Profile:
    profile = profile_pb2.Profile.FromString(row.definition)
    profile.updated_time.CopyFrom(times.timestamp(row.updated_time))
    return profile


def _missing(name: str) -> errors.NotFound:
    return errors.NotFound(
        f"profile: there is no profile {name!r}. List them with GET /profiles.",
        reason=errors.Reason.PROFILE_NOT_FOUND,
        metadata={"field": "profile", "profile": name},
    )
