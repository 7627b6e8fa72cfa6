"""What a request at ``/sign_in`` says: in headers, or, as browsers must, in the subprotocols of its WebSocket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from footlights.errors import InvalidArgument, Reason, Unauthenticated
from footlights.http.scope import path_below_mount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Scope

NVCF_PATHS: Final = "/v2/nvcf/"
"""Below this is what portals ask of the control plane."""
PATH: Final = "/sign_in"
COOKIE: Final = "nvcf-request-id"
REQUEST_ID: Final = "nvcf-reqid"
WINDOW: Final = "x-nvcf-reconnect-window-secs"

_FUNCTION, _VERSION, _AUTHORIZATION = "function-id", "function-version-id", "authorization"
_CARRIED: Final = (_AUTHORIZATION, _FUNCTION, _VERSION, REQUEST_ID)
"""What subprotocols may carry: ``function-id.VALUE``."""
_NOT_PASSED_ON: Final = frozenset({*_CARRIED, "cookie", "sec-websocket-protocol"})
_OURS: Final = "x-nvcf-"
_DEFAULT_WINDOW_S: Final = 300
_LONGEST_WINDOW_S: Final = 1800


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says."""

    authorizations: tuple[str, ...] = field(repr=False)
    """Each ``Authorization`` that it has."""
    function_id: str
    version_id: str
    request_id: str
    """The session that it is about; empty where it names none."""
    window: str
    """How long the session is to wait for its viewer to come back, in seconds, as it says it."""
    offered: tuple[str, ...] = field(repr=False)
    """All subprotocols."""

    @classmethod
    def of(cls, scope: Scope) -> Asked:
        """Read a request."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
        offered = tuple(scope.get("subprotocols") or ()) if scope["type"] == "websocket" else ()

        def said(name: str) -> str:
            return headers.get(name, [""])[0] or _carried(offered, name)

        token = _carried(offered, _AUTHORIZATION)
        return cls(
            tuple(headers.get(_AUTHORIZATION, ())) or ((f"Bearer {token}",) if token else ()),
            said(_FUNCTION),
            said(_VERSION),
            said(REQUEST_ID) or _cookie(headers.get("cookie", ())),
            headers.get(WINDOW, [""])[0],
            offered,
        )

    @property
    def authorization(self) -> str:
        """The one ``Authorization``; empty where there is none. Raises Unauthenticated where there are several."""
        if len(self.authorizations) > 1:
            raise Unauthenticated(
                "The request has several Authorization headers. Send one.", reason=Reason.TOKEN_INVALID
            )
        return next(iter(self.authorizations), "")

    @property
    def window_s(self) -> int:
        """``window``, within what NVCF allows; without one as long as NVCF waits. Raises InvalidArgument."""
        if not self.window:
            return _DEFAULT_WINDOW_S
        if not (self.window.isascii() and self.window.isdigit() and len(self.window) < 10):
            raise InvalidArgument("X-NVCF-RECONNECT-WINDOW-SECS", f"must be whole seconds (got {self.window[:32]!r}).")
        return min(max(int(self.window), 1), _LONGEST_WINDOW_S)

    @property
    def answered_with(self) -> str | None:
        """The subprotocol that is answered where the application chose none, as a browser needs: the token's last."""
        secret = f"{_AUTHORIZATION}."
        return min(self.offered, key=lambda name: name.lower().startswith(secret), default=None)


def is_about_functions(scope: Scope) -> bool:
    """Return whether a request is NVCF's: others dial the same path, and name no function."""
    if scope["type"] not in ("http", "websocket") or path_below_mount(scope) != PATH:
        return False
    return scope.get("method") == "POST" or bool(Asked.of(scope).function_id)


def passed_on(scope: Scope, session_id: str, grant: str) -> Scope:
    """Return the scope of a request as the front door is asked for a session, with none of what was for us."""
    kept = [
        (name, value)
        for name, value in scope["headers"]
        if (text := name.decode("latin-1").lower()) not in _NOT_PASSED_ON and not text.startswith(_OURS)
    ]
    path = f"{scope.get('root_path', '')}/v1/sessions/{session_id}{PATH}"
    return {
        **scope,
        "path": path,
        "raw_path": path.encode(),
        "headers": [*kept, (b"authorization", f"Bearer {grant}".encode()), (REQUEST_ID.encode(), session_id.encode())],
        "subprotocols": [
            name for name in scope.get("subprotocols") or () if name.lower().partition(".")[0] not in _CARRIED
        ],
    }


def _carried(offered: Sequence[str], name: str) -> str:
    start = f"{name}."
    return next((each[len(start) :] for each in offered if each.lower().startswith(start)), "")


def _cookie(headers: Sequence[str]) -> str:
    for each in headers:
        for pair in each.split(";"):
            name, _, value = pair.partition("=")
            if name.strip() == COOKIE:
                return value.strip().strip('"')
    return ""
