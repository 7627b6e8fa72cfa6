"""Ids and names: how they are generated and which are valid. Pure."""

from __future__ import annotations

import ipaddress
import re
import uuid

import uuid_utils

from footlights.errors import InvalidArgument, Reason

SLUG = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
"""An id chosen by a user (AIP-122)."""

NODE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""A node name: a host name in lower case (RFC 1123)."""

REQUEST_ID = re.compile(r"[!-~]{1,128}")
"""A request id chosen by a caller: visible ASCII."""


def new_id() -> str:
    """Return a new time-ordered id (UUID version 7, RFC 9562), 36 characters."""
    return str(uuid_utils.uuid7())


def viewer_id(nonce: str) -> str:
    """Return the id of the viewer that uses the grant with ``nonce``: no secret, and never taken for an option."""
    return f"v{nonce}"


def request_id(given: str) -> str:
    """Return ``given``, the caller's ``X-Request-Id``, if it is a valid request id, else a new one."""
    return given if REQUEST_ID.fullmatch(given) else new_id()


def check_slug(field: str, value: str) -> str:
    """Return ``value`` if it is a valid id; otherwise raise InvalidArgument for ``field``."""
    if not SLUG.fullmatch(value):
        raise InvalidArgument(
            field,
            f"invalid id {value!r}; use lower-case letters, digits and hyphens, starting with a letter, "
            "not ending with a hyphen, at most 63 characters.",
            reason=Reason.INVALID_ID,
            metadata={"value": value},
        )
    return value


def check_node(field: str, value: str) -> str:
    """Return ``value`` if it is a valid node name; otherwise raise InvalidArgument for ``field``."""
    if not NODE.fullmatch(value):
        raise InvalidArgument(
            field,
            f"invalid node name {value!r}; use lower-case letters, digits, hyphens and dots, at most 253 characters.",
            reason=Reason.INVALID_ID,
            metadata={"value": value},
        )
    return value


def is_uuid(value: str) -> bool:
    """Return whether ``value`` is a UUID in canonical form, as all generated ids are."""
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is a loopback address, which only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
