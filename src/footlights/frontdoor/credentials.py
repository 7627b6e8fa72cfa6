"""Finds the grant of a request and takes it out, so that it is neither passed on nor logged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from footlights.ids import is_uuid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Scope

_SUBPROTOCOL = "authorization-bearer."
_SESSION = "x-nv-sessionid."
_PEER = re.compile(rb"[A-Za-z0-9_.-]{1,64}")


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
    in_url: bool = False
    """Whether the grant was in the query."""
    is_foreign: bool = False
    """Whether the request is from a page that may not call without a grant."""

    @property
    def session_ids(self) -> tuple[str, ...]:
        """The sessions that subprotocols name, each once: ``x-nv-sessionid.ID``, or the id itself."""
        names = (name[len(_SESSION) :] if name.lower().startswith(_SESSION) else name for name in self.subprotocols)
        return tuple(dict.fromkeys(name for name in names if is_uuid(name)))

    @property
    def peer_id(self) -> str:
        """What NVIDIA's player calls itself in the query, the same when it comes back; empty for another client."""
        for part in self.query.split(b"&"):
            name, _, value = part.partition(b"=")
            if name == b"peer_id" and _PEER.fullmatch(value):
                return value.decode("ascii")
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
    given = scope.get("subprotocols", ()) if scope["type"] == "websocket" else _listed(scope)
    offered = [name for name in given if name]  # a list may have empty elements (RFC 9110, section 5.6.1)
    subprotocols, grant_subprotocol = _split_subprotocols(offered)
    grant = _from_header(scope) or grant_subprotocol[len(_SUBPROTOCOL) :]
    return Credentials(grant or from_query, query, subprotocols, grant_subprotocol, in_url=not grant)


def _from_header(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, rest = value.decode("latin-1").partition(" ")
            return rest.strip() if scheme.lower() == "bearer" else ""
    return ""


def _listed(scope: Scope) -> list[str]:
    """The subprotocols that a request without a WebSocket names, as a player that looks before it dials may."""
    values = (value.decode("latin-1") for name, value in scope["headers"] if name == b"sec-websocket-protocol")
    return [each.strip() for value in values for each in value.split(",")]


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
