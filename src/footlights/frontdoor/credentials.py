"""Finds the grant of a request and takes it out, so that it is neither passed on nor logged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from footlights.ids import is_uuid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Scope

_SUBPROTOCOL = "authorization-bearer."
_SESSION = "x-nv-sessionid."


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request came with, apart: the grant, and the rest that may be passed on."""

    grant: str
    """The grant; empty where there is none."""
    query: bytes
    """The query without ``access_token``, otherwise byte for byte."""
    subprotocols: tuple[str, ...]
    """The WebSocket subprotocols without the grant's."""
    grant_subprotocol: str
    """The subprotocol that carried the grant, to be echoed; empty where another way did."""

    @property
    def session_id(self) -> str:
        """The session that a subprotocol names: ``x-nv-sessionid.ID``, or the id itself; empty where none does."""
        for name in self.subprotocols:
            rest = name[len(_SESSION) :] if name.lower().startswith(_SESSION) else name
            if is_uuid(rest):
                return rest
        return ""

    def carried(self, header: str) -> tuple[str, str]:
        """Return the subprotocol that stands for a header, ``header.VALUE``, and the value; empty where none does."""
        for name in self.subprotocols:
            if name.lower().startswith(f"{header}."):
                return name, name[len(header) + 1 :]
        return "", ""

    def __repr__(self) -> str:
        return "Credentials([redacted])"


def take(scope: Scope) -> Credentials:
    """Take the grant out of ``scope``: header first, then WebSocket subprotocol, then query.

    The scope itself loses the query's ``access_token``, because servers log the query of the scope they handed over.
    """
    query, from_query = _split_query(scope["query_string"])
    scope["query_string"] = query
    offered = scope.get("subprotocols", ()) if scope["type"] == "websocket" else ()
    subprotocols, grant_subprotocol = _split_subprotocols(offered)
    grant = _from_header(scope) or grant_subprotocol[len(_SUBPROTOCOL) :] or from_query
    return Credentials(grant, query, subprotocols, grant_subprotocol)


def _from_header(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, rest = value.decode("latin-1").partition(" ")
            return rest.strip() if scheme.lower() == "bearer" else ""
    return ""


def _split_query(query: bytes) -> tuple[bytes, str]:
    kept, found = [], ""
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if unquote(name.decode("latin-1")) == "access_token":
            found = found or unquote(value.decode("latin-1"))
        elif part:
            kept.append(part)
    return b"&".join(kept), found


def _split_subprotocols(offered: Sequence[str]) -> tuple[tuple[str, ...], str]:
    ours = [name for name in offered if name.lower().startswith(_SUBPROTOCOL)]
    return tuple(name for name in offered if name not in ours), ours[0] if ours else ""
