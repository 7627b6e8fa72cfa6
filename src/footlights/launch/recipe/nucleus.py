"""From the published ``nucleus_connection_config`` to what Kit reads: OMNI_USER and OMNI_PASS.

The shape of its items was never published. Understood are those with a user name and a password, and those with a
token, which Kit is given as the password of ``$omni-api-token``. They stand for a version's secret arguments
``omni_user`` and ``omni_pass``, where it declares both and the session gives neither. Kit knows one account: of several
different ones none is chosen. All of it is in the session file in any case, for applications that read more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from footlights.v1.application_pb2 import Argument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from footlights.v1.application_pb2 import Version

USER: Final = "omni_user"
PASSWORD: Final = "omni_pass"  # noqa: S105  # the name of an argument
TOKEN_USER: Final = "$omni-api-token"  # noqa: S105  # the user name that says that the password is a token
_USERS: Final = ("username", "user", USER)
_PASSWORDS: Final = ("password", "pass", PASSWORD)
_TOKENS: Final = ("token", "api_token", "apitoken", "access_token")


def account(version: Version, items: object) -> dict[str, str]:
    """Return the version's arguments that an account of ``items`` gives; empty where there is none, or not just one."""
    declared = {each.name for each in version.arguments if each.secret and each.type == Argument.STRING}
    if not {USER, PASSWORD} <= declared or not isinstance(items, list | tuple):
        return {}
    accounts = {found for item in items if (found := _account(item)) is not None}
    return dict(zip((USER, PASSWORD), accounts.pop(), strict=True)) if len(accounts) == 1 else {}


def _account(item: object) -> tuple[str, str] | None:
    if not hasattr(item, "items"):
        return None
    known: Mapping[str, object] = {str(name).lower().replace("-", "_"): value for name, value in item.items()}
    user, password, token = (_first(known, names) for names in (_USERS, _PASSWORDS, _TOKENS))
    if token and not password:
        return TOKEN_USER, token
    return (user, password) if user and password else None


def _first(known: Mapping[str, object], names: Iterable[str]) -> str:
    return next((value for name in names if isinstance(value := known.get(name), str) and value), "")
