"""Ids and names: how they are made and what they may look like. Pure."""

from __future__ import annotations

import ipaddress
import re
import uuid

import uuid_utils

from footlights.errors import InvalidArgument

SLUG = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
"""Ids that people choose (AIP-122)."""

NODE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""Node names: what a host name may be, in lower case (RFC 1123)."""

REQUEST_ID = re.compile(r"[!-~]{1,128}")
"""What a caller may name its request: visible ASCII."""


def new_id() -> str:
    """Make a time-ordered id (UUID version 7, RFC 9562), as its 36 characters."""
    return str(uuid_utils.uuid7())


def request_id(given: str) -> str:
    """Return the id of a request: the one its caller gave in ``X-Request-Id`` where that will do, else a new one."""
    return given if REQUEST_ID.fullmatch(given) else new_id()


def check_slug(field: str, value: str) -> str:
    """Return ``value`` where it may be an id; raise InvalidArgument that names ``field`` otherwise."""
    if not SLUG.fullmatch(value):
        raise InvalidArgument(
            field,
            f"{value!r} is not an id. Start with a lower-case letter, then letters, digits and hyphens, "
            "not ending in a hyphen, at most 63 characters.",
            metadata={"value": value},
        )
    return value


def check_node(field: str, value: str) -> str:
    """Return ``value`` where it may be a node's name; raise InvalidArgument that names ``field`` otherwise."""
    if not NODE.fullmatch(value):
        raise InvalidArgument(
            field,
            f"{value!r} is not a node name. Use lower-case letters, digits, hyphens and dots, at most 253 characters.",
            metadata={"value": value},
        )
    return value


def is_uuid(value: str) -> bool:
    """Say whether ``value`` is a UUID in its canonical form; other ids cannot be ours."""
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
