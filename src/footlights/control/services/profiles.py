"""ProfileService: named sets of needs, limits, environment, arguments and secrets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from footlights import errors, ids
from footlights.control.call.pages import Chunk, ListPage, PagedList, Place
from footlights.control.services import etags, masks
from footlights.control.services.sessions import resolve
from footlights.launch.recipe import limits, overrides
from footlights.protocol import times
from footlights.store import Store, Transaction
from footlights.store import applications as rows
from footlights.store.cluster.sealed_values import PROFILE_SECRETS
from footlights.v1 import profile_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from footlights.auth.secrets import Box
    from footlights.control.call.context import Call
    from footlights.control.call.sealed import Sealer
    from footlights.control.services.writes import Writes
    from footlights.control.signals import Signals
    from footlights.store.schema import ProfileRow

_MUTABLE = ("display_name", "description", "matches", "needs", "limits", "environment", "arguments", "secrets")


class ProfileService:
    """Serves profiles."""

    def __init__(
        self, store: Store, writes: Writes, bus: Signals, clock: Callable[[], datetime], *, sealer: Sealer, box: Box
    ) -> None:
        self._store, self._writes, self._bus, self._clock = store, writes, bus, clock
        self._sealer, self._box = sealer, box

    async def list_profiles(
        self, request: profile_pb2.ListProfilesRequest, call: Call
    ) -> profile_pb2.ListProfilesResponse:
        """Return one page of profiles, or of those that match an application, by name."""
        pages = PagedList(self._sealer, "profiles", request)

        def read(tx: Transaction) -> ListPage[profile_pb2.Profile]:
            def some(after: Place | None, limit: int) -> Chunk[profile_pb2.Profile]:
                found = rows.profile_page(tx, after[0] if after else "", limit)
                items = [([row.profile], _message(row)) for row in found.rows]
                return Chunk([(place, each if asked(each) else None) for place, each in items], found.found == limit)

            return pages.page(request, some, sparse=bool(request.application))

        def asked(profile: profile_pb2.Profile) -> bool:
            return not request.application or resolve.matches(profile, request.application)

        page = await self._store.read(read)
        return profile_pb2.ListProfilesResponse(items=page.items, next_page_token=page.next_page_token)

    async def get_profile(self, request: profile_pb2.GetProfileRequest, call: Call) -> profile_pb2.Profile:
        """Return one profile."""
        return await self._store.read(lambda tx: _find(tx, request.profile))

    async def update_profile(self, request: profile_pb2.UpdateProfileRequest, call: Call) -> profile_pb2.Profile:
        """Change members of a profile that exists."""
        name, now = request.profile.profile, self._clock()

        def write(tx: Transaction) -> profile_pb2.Profile:
            profile = _find(tx, name, lock=True)
            etags.check(request.etag, profile.etag, f"profile {name}")
            masks.apply(profile, request.profile, request.update_mask, mutable=_MUTABLE, identity=("profile",))
            return _put(tx, profile, self._box, now)

        return await self._writes.run(request, call, write, answer=profile_pb2.Profile, done=self._changed)

    async def set_profile(self, request: profile_pb2.SetProfileRequest, call: Call) -> profile_pb2.Profile:
        """Create or replace a profile."""
        name, now = request.profile.profile, self._clock()
        ids.check_slug("profile.profile", name)

        def write(tx: Transaction) -> profile_pb2.Profile:
            row = rows.profile(tx, name, lock=True)
            known = None if row is None else _message(row)
            etags.check(request.etag, "" if known is None else known.etag, f"profile {name}")
            if known is not None and _is_empty(request.profile) and not _is_empty(known):
                raise errors.FailedPrecondition(
                    f"profile: it has nothing but its name, and {name!r} exists with more, which would be erased. "
                    "Change members of it with PATCH, or remove it with DELETE.",
                    reason=errors.Reason.EMPTY_RESOURCE,
                    metadata={"field": "profile", "resource": name},
                )
            return _put(tx, request.profile, self._box, now)

        return await self._writes.run(request, call, write, answer=profile_pb2.Profile, done=self._changed)

    async def delete_profile(
        self, request: profile_pb2.DeleteProfileRequest, call: Call
    ) -> profile_pb2.DeleteProfileResponse:
        """Remove a profile."""

        def write(tx: Transaction) -> profile_pb2.DeleteProfileResponse:
            etags.check(request.etag, _find(tx, request.profile, lock=True).etag, f"profile {request.profile}")
            rows.remove_profile(tx, request.profile)
            return profile_pb2.DeleteProfileResponse()

        kind = profile_pb2.DeleteProfileResponse
        return await self._writes.run(request, call, write, answer=kind, done=self._changed)

    def _changed(self, _answer: Message) -> None:
        self._bus.catalogue.publish()


def _find(tx: Transaction, name: str, *, lock: bool = False) -> profile_pb2.Profile:
    row = rows.profile(tx, name, lock=lock)
    if row is None:
        raise errors.NotFound(
            f"profile: there is no profile {name!r}. List them with GET /v1/profiles.",
            reason=errors.Reason.PROFILE_NOT_FOUND,
            metadata={"field": "profile", "profile": name},
        )
    return _message(row)


def _put(tx: Transaction, wanted: profile_pb2.Profile, box: Box, now: datetime) -> profile_pb2.Profile:
    """Write a profile, and return it as it is then. Raises InvalidArgument for what cannot be."""
    resolve.check_needs("profile.needs", wanted.needs)
    limits.check("profile.limits", wanted.limits)
    bare = _definition(wanted)
    row = rows.profile(tx, bare.profile, lock=True)
    sealed = _seal(bare, None if row is None else row.secrets, box)
    rows.put_profile(tx, bare.profile, bare.SerializeToString(deterministic=True), sealed, now=now)
    return _find(tx, bare.profile)


def _seal(profile: profile_pb2.Profile, stored: bytes | None, box: Box) -> bytes | None:
    """Check what a profile gives, and take the values of its secrets out of it; return them sealed, None for none.

    Raises InvalidArgument for what cannot be, also for a secret that is to be kept where there is none.
    """
    bound = f"{PROFILE_SECRETS}{profile.profile}".encode()
    known = overrides.secrets_of(box.open(stored, bound)) if stored and profile.secrets else {}
    for name, value in profile.secrets.items():
        if value == resolve.REDACTED and name not in known:
            raise errors.InvalidArgument(
                f"profile.secrets[{name!r}]",
                f"it is {resolve.REDACTED}, which keeps a secret that is stored, and none is. Give its value.",
            )
    secrets = {name: known[name] if value == resolve.REDACTED else value for name, value in profile.secrets.items()}
    profile.secrets.update(secrets)
    overrides.check(profile)
    profile.secrets.update(dict.fromkeys(secrets, resolve.REDACTED))
    if not secrets:
        return None
    # Those that are equal stay as they are, and with them the etag.
    return stored if stored and secrets == known else box.seal(json.dumps(secrets).encode(), bound)


def _definition(profile: profile_pb2.Profile) -> profile_pb2.Profile:
    """Return a profile without what the control plane adds."""
    bare = profile_pb2.Profile()
    bare.CopyFrom(profile)
    bare.ClearField("updated_time")
    bare.ClearField("etag")
    return bare


def _is_empty(profile: profile_pb2.Profile) -> bool:
    """Return whether a profile has nothing but its name; needs and limits without members are nothing."""
    members = _definition(profile).ListFields()
    return not any(
        not isinstance(value, Message) or value.ByteSize() for field, value in members if field.name != "profile"
    )


def _message(row: ProfileRow) -> profile_pb2.Profile:
    profile = profile_pb2.Profile.FromString(row.definition)
    # A replica of the release before stores what it does not know as it came.
    profile.secrets.update(dict.fromkeys(profile.secrets, resolve.REDACTED))
    profile.updated_time.CopyFrom(times.timestamp(row.updated_time))
    profile.etag = etags.of_contents(profile, *([row.secrets] if row.secrets else []))
    return profile
