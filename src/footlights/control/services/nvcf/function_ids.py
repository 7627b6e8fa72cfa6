"""Which application a function's id stands for.

Each application has an id that follows from its name, and each version and release of it one that follows from both
names: the same in every cluster, and never stored. Beside these there are the ids that an operator has given.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from footlights.errors import NotFound, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from footlights.control.settings import GivenFunction

Names = dict[str, tuple[list[str], list[str]]]
"""By application: its versions, newest first, and its releases."""

_SPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://footlights.dev/nvcf")
_DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class FunctionVersion:
    """What is started under two ids."""

    function_id: str
    version_id: str
    application: str
    version: str
    """A version or a release."""
    profile: str = ""

    @property
    def name(self) -> str:
        """What it is called in lists."""
        return f"{self.application}@{self.version}" + (f":{self.profile}" if self.profile else "")


def function_id(application: str) -> str:
    """Return the id that an application has as a function."""
    return str(uuid.uuid5(_SPACE, application))


def version_id(application: str, version: str) -> str:
    """Return the id that a version or a release of an application has."""
    return str(uuid.uuid5(_SPACE, f"{application}@{version}"))


def every(
    names: Mapping[str, tuple[Sequence[str], Sequence[str]]], given: Sequence[GivenFunction]
) -> list[FunctionVersion]:
    """Return what can be started, by application; what was given for one that there is not is left out."""
    found: list[FunctionVersion] = []
    for application, (versions, releases) in names.items():
        own = [(function_id(application), "")]
        own += [
            (each.function_id, each.profile)
            for each in given
            if each.application == application and not each.version_id
        ]
        for id_, profile in own:
            found += (
                FunctionVersion(id_, version_id(application, name), application, name, profile)
                for name in (*releases, *versions)
            )
        for each in given:
            version = each.version or _usual(versions, releases)
            if each.application == application and each.version_id and version in (*versions, *releases):
                found.append(FunctionVersion(each.function_id, each.version_id, application, version, each.profile))
    return found


def find(names: Names, given: Sequence[GivenFunction], function: str, version: str) -> FunctionVersion:
    """Return what two ids stand for; without a version's that of the release ``default``, else the newest.

    Raises NotFound.
    """
    function, version = function.lower(), version.lower()
    found = [each for each in every(names, given) if each.function_id == function]
    if not version and found:
        usual = _usual(*names[found[0].application])
        return next((each for each in found if each.version == usual), found[0])
    for each in found:
        if each.version_id == version:
            return each
    what = f"version {version!r} of the function {function!r}" if found else f"function {function!r}"
    raise NotFound(
        f"There is no {what}. GET /v2/nvcf/functions lists all.",
        reason=Reason.FUNCTION_NOT_FOUND,
        metadata={"function_id": function, "version_id": version},
    )


def _usual(versions: Sequence[str], releases: Sequence[str]) -> str:
    return _DEFAULT if _DEFAULT in releases else next(iter(versions), "")
