"""What can be run, and who may call: applications, versions, releases, profiles, tokens, and calls to be remembered."""

from typing import Annotated, NamedTuple

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index
from sqlmodel import Field

from footlights.store.schema.columns import Json, Key, Moment, OptionalMoment, Strings, table


class ApplicationRow(NamedTuple):
    """Something that can be streamed."""

    application: Key
    display_name: str
    description: str
    tags: Strings
    created_time: Moment


class VersionRow(NamedTuple):
    """An immutable recipe."""

    application: Annotated[str, Field(primary_key=True, foreign_key="application.application")]
    version: Key
    recipe: bytes
    """The serialized ``footlights.v1.Version``."""
    created_time: Moment


class FormerVersionRow(NamedTuple):
    """A version that was removed: whoever adds it again must give the same recipe. Kept for ever."""

    application: Key
    version: Key
    digest: bytes
    """The SHA-256 of its recipe."""


class ReleaseRow(NamedTuple):
    """A name that points at a version."""

    application: Annotated[str, Field(primary_key=True, foreign_key="application.application")]
    release: Key
    version: str
    updated_time: Moment


class ReleaseChangeRow(NamedTuple):
    """One time that a release was pointed at a version."""

    application: Key
    release: Key
    number: Annotated[int, Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})]
    """Counts the release's changes."""
    version: str
    time: Moment
    subject: str
    """By whom."""


class ProfileRow(NamedTuple):
    """A named bundle of what sessions of a version may get instead."""

    profile: Key
    definition: bytes
    """The serialized ``footlights.v1.Profile``, without the values of its secrets."""
    updated_time: Moment
    secrets: bytes | None = None
    """Those by name, as JSON, sealed with the cluster's key; None where it has none."""


class PoolRow(NamedTuple):
    """Instances of a version that are started ahead of sessions."""

    pool: Key
    application: str
    definition: bytes
    """The serialized ``footlights.v1.Pool``."""
    updated_time: Moment
    status: Json
    """``wanted``, ``version`` and ``message``, as placement last saw it; empty before it has."""


class TokenRow(NamedTuple):
    """A token."""

    token_id: Key
    digest: bytes
    """A keyed hash: the token itself is not stored."""
    role: str
    subject: str
    description: str
    created_time: Moment
    expire_time: OptionalMoment
    revoked_time: OptionalMoment


class RememberedCallRow(NamedTuple):
    """A write that has been answered, by its caller's request id. Kept for 24 hours."""

    subject: Key
    method: Key
    """``/package.Service/Method``."""
    request_id: Key
    """Its SHA-256."""
    digest: bytes
    """Of the request."""
    answer: bytes
    """Sealed with the cluster's key; empty only inside the transaction that writes the row."""
    created_time: Moment


APPLICATION = table("application", ApplicationRow)
VERSION = table("version", VersionRow)
FORMER_VERSION = table("former_version", FormerVersionRow)
RELEASE = table("release", ReleaseRow)
RELEASE_CHANGE = table(
    "release_change",
    ReleaseChangeRow,
    ForeignKeyConstraint(["application", "release"], ["release.application", "release.release"], ondelete="CASCADE"),
)
PROFILE = table("profile", ProfileRow)
POOL = table("pool", PoolRow)
TOKEN = table("token", TokenRow, Index("ix_token_created", "created_time", "token_id"))
REMEMBERED_CALL = table("remembered_call", RememberedCallRow, Index("ix_remembered_call_created", "created_time"))
