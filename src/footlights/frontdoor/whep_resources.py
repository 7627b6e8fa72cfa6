"""WHEP resource ids: the application's own, bound to the session and to the grant that made it.

``<name>.<nonce>.<mac>``: where on the application it is, the nonce of the grant it was made with, and a signature over
both and the session. So a resource can be ended by its own grant after that has expired, by no other expired grant, and
never leads to a path that the application did not itself name.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from footlights import ids
from footlights.errors import NotFound, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_ENCODED = "~"
_MAC_BYTES = 16


class WhepResource(NamedTuple):
    """A resource as the application knows it."""

    target: str
    """Its path on the signal port, with its query."""
    nonce: str
    """The nonce of the grant that it was made with."""

    @property
    def viewer_id(self) -> str:
        """The viewer that made it."""
        return ids.viewer_id(self.nonce)


def target_of(whep_path: str, location: str) -> str:
    """Return the path, with its query, that an application means by the ``location`` of its answer."""
    parts = urlsplit(urljoin(f"http://node{whep_path}", location))
    return quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="/?&=%:@!$'()*+,;~-._")


class WhepResources:
    """Names WHEP resources, and reads the names it gave."""

    def __init__(self, keys: Callable[[], Sequence[bytes]]) -> None:
        """Sign with the first of ``keys``; all of them verify."""
        self._keys = keys

    def name(self, session_id: str, nonce: str, whep_path: str, location: str) -> str:
        """The id for what the application answered as ``location`` to a POST on ``whep_path``."""
        target = target_of(whep_path, location)
        below = target.removeprefix(f"{whep_path.rstrip('/')}/")
        name = below if below != target and _PLAIN.fullmatch(below) else _ENCODED + _base64(target.encode())
        return f"{name}.{nonce}.{_mac(self._keys()[0], session_id, name, nonce)}"

    def read(self, session_id: str, whep_path: str, resource: str) -> WhepResource:
        """The resource of an id.

        Raises:
            NotFound: ``WHEP_RESOURCE_NOT_FOUND``: no id that was given for this session.
        """
        name, nonce, mac = (["", "", *resource.rsplit(".", 2)])[-3:]
        # Compared as bytes: compare_digest refuses text that is not ASCII.
        macs = [_mac(key, session_id, name, nonce).encode() for key in self._keys()]
        if not any(hmac.compare_digest(mac.encode(), each) for each in macs):
            raise NotFound(
                "There is no such WHEP resource in this session: use the Location that the POST answered with.",
                reason=Reason.WHEP_RESOURCE_NOT_FOUND,
                metadata={"session_id": session_id, "resource": resource},
            )
        if name.startswith(_ENCODED):
            word = name.removeprefix(_ENCODED)
            return WhepResource(base64.urlsafe_b64decode(word + "=" * (-len(word) % 4)).decode(), nonce)
        return WhepResource(f"{whep_path.rstrip('/')}/{name}", nonce)


def _mac(key: bytes, session_id: str, name: str, nonce: str) -> str:
    text = "\0".join(("footlights.whep.v1", session_id, name, nonce)).encode()
    return _base64(hmac.digest(key, text, hashlib.sha256)[:_MAC_BYTES])


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
