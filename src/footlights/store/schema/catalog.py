"""What can be run, and who may call: applications, versions, releases, profiles, tokens."""

from typing import Annotated, NamedTuple

from sqlalchemy import Index
from sqlmodel import Field

from footlights.store.schema.columns import Key, Moment, OptionalMoment, Strings, table


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


class ReleaseRow(NamedTuple):
    """A name that points at a version."""

    application: Annotated[str, Field(primary_key=True, foreign_key="application.application")]
    release: Key
    version: str
    updated_time: Moment


class ProfileRow(NamedTuple):
    """A named bundle of needs and limits."""

    profile: Key
    definition: bytes
    """The serialized ``footlights.v1.Profile``."""
    updated_time: Moment


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


APPLICATION = table("application", ApplicationRow)
VERSION = table("version", VersionRow)
RELEASE = table("release", ReleaseRow)
PROFILE = table("profile", ProfileRow)
TOKEN = table("token", TokenRow, Index("ix_token_created", "created_time", "token_id"))
