"""What can be run, and who may call: applications, versions, releases, profiles, tokens."""

from typing import Annotated, NamedTuple

from sqlmodel import Field, SQLModel

from footlights.store.schema.columns import Key, Moment, OptionalMoment, Strings, table


class ApplicationRow(NamedTuple):
    """Something that can be streamed."""

    application: Key
    display_name: str
    description: str
    tags: Strings
    created_time: Moment


class ApplicationTable(SQLModel, table=True):
    """Declares the table of ``ApplicationRow``."""

    __annotations__ = ApplicationRow.__annotations__
    __tablename__ = "application"


class VersionRow(NamedTuple):
    """An immutable recipe."""

    application: Annotated[str, Field(primary_key=True, foreign_key="application.application")]
    version: Key
    recipe: bytes
    """The serialized ``footlights.v1.Version``."""
    created_time: Moment


class VersionTable(SQLModel, table=True):
    """Declares the table of ``VersionRow``."""

    __annotations__ = VersionRow.__annotations__
    __tablename__ = "version"


class ReleaseRow(NamedTuple):
    """A name that points at a version."""

    application: Annotated[str, Field(primary_key=True, foreign_key="application.application")]
    release: Key
    version: str
    updated_time: Moment


class ReleaseTable(SQLModel, table=True):
    """Declares the table of ``ReleaseRow``."""

    __annotations__ = ReleaseRow.__annotations__
    __tablename__ = "release"


class ProfileRow(NamedTuple):
    """A named bundle of needs and limits."""

    profile: Key
    definition: bytes
    """The serialized ``footlights.v1.Profile``."""
    updated_time: Moment


class ProfileTable(SQLModel, table=True):
    """Declares the table of ``ProfileRow``."""

    __annotations__ = ProfileRow.__annotations__
    __tablename__ = "profile"


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


class TokenTable(SQLModel, table=True):
    """Declares the table of ``TokenRow``."""

    __annotations__ = TokenRow.__annotations__
    __tablename__ = "token"


APPLICATION = table(ApplicationTable, ApplicationRow)
VERSION = table(VersionTable, VersionRow)
RELEASE = table(ReleaseTable, ReleaseRow)
PROFILE = table(ProfileTable, ProfileRow)
TOKEN = table(TokenTable, TokenRow)
