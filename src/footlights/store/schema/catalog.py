"""What can be run, and who may call: applications, versions, releases, profiles, tokens."""

from __future__ import annotations

from typing import NamedTuple

from sqlmodel import Field, SQLModel

from footlights.store.schema.columns import KEY, Moment, OptionalMoment, Strings, table


class ApplicationTable(SQLModel, table=True):
    """Declares the table of ``ApplicationRow``."""

    __tablename__ = "application"

    application: str = KEY
    display_name: str
    description: str
    tags: Strings
    created_time: Moment


class ApplicationRow(NamedTuple):
    """Something that can be streamed."""

    application: str
    display_name: str
    description: str
    tags: Strings
    created_time: Moment


class VersionTable(SQLModel, table=True):
    """Declares the table of ``VersionRow``."""

    __tablename__ = "version"

    application: str = Field(primary_key=True, foreign_key="application.application")
    version: str = KEY
    recipe: bytes
    created_time: Moment


class VersionRow(NamedTuple):
    """An immutable recipe."""

    application: str
    version: str
    recipe: bytes
    """The serialized ``footlights.v1.Version``."""
    created_time: Moment


class ReleaseTable(SQLModel, table=True):
    """Declares the table of ``ReleaseRow``."""

    __tablename__ = "release"

    application: str = Field(primary_key=True, foreign_key="application.application")
    release: str = KEY
    version: str
    updated_time: Moment


class ReleaseRow(NamedTuple):
    """A name that points at a version."""

    application: str
    release: str
    version: str
    updated_time: Moment


class ProfileTable(SQLModel, table=True):
    """Declares the table of ``ProfileRow``."""

    __tablename__ = "profile"

    profile: str = KEY
    definition: bytes
    updated_time: Moment


class ProfileRow(NamedTuple):
    """A named bundle of needs and limits."""

    profile: str
    definition: bytes
    """The serialized ``footlights.v1.Profile``."""
    updated_time: Moment


class TokenTable(SQLModel, table=True):
    """Declares the table of ``TokenRow``."""

    __tablename__ = "token"

    token_id: str = KEY
    digest: bytes
    role: str
    subject: str
    description: str
    created_time: Moment
    expire_time: OptionalMoment
    revoked_time: OptionalMoment


class TokenRow(NamedTuple):
    """A token."""

    token_id: str
    digest: bytes
    """A keyed hash: the token itself is not stored."""
    role: str
    subject: str
    description: str
    created_time: Moment
    expire_time: OptionalMoment
    revoked_time: OptionalMoment


APPLICATION = table(ApplicationTable, ApplicationRow)
VERSION = table(VersionTable, VersionRow)
RELEASE = table(ReleaseTable, ReleaseRow)
PROFILE = table(ProfileTable, ProfileRow)
TOKEN = table(TokenTable, TokenRow)
