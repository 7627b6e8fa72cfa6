"""HTTP proxies of the environment, which gRPC uses for all that it dials: not for this machine, and named in errors.

gRPC reads ``grpc_proxy``, ``https_proxy`` and ``http_proxy``, the first that is set, and the exceptions in
``no_grpc_proxy`` or ``no_proxy``. It asks the proxy also for 127.0.0.1, where the proxy finds itself.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
EXCEPTIONS: Final = ("no_grpc_proxy", "no_proxy")
DIRECT: Final = (("grpc.enable_http_proxy", 0),)
"""The options of a channel that uses no proxy."""


def channel_options(target: str) -> tuple[tuple[str, Any], ...]:
    """Return the options that keep a channel to this machine from going through a proxy; none for other targets."""
    return DIRECT if _is_here(_host(target)) else ()


def proxy_hint(target: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return which variable has connections to ``target`` go through which proxy; empty where none does."""
    host = _host(target)
    name = next((each for each in VARIABLES if environ.get(each)), "")
    if not name or _is_here(host) or _is_excepted(host, environ):
        return ""
    # A password may have any character, and the scheme may be missing.
    proxy = re.sub(r"^([a-z]+://)?.*@", r"\1", environ[name], flags=re.IGNORECASE | re.DOTALL)
    return (
        f"The variable {name} has connections to {host} go through the proxy {proxy}. If they need none, add {host} to "
        "no_proxy."
    )


def _host(target: str) -> str:
    address = target.rpartition("/")[2] if target.startswith("dns:") else target
    address = re.sub(r"^(?:ipv4|ipv6|dns):", "", address)
    host, _, port = address.rpartition(":")
    return (host if host and port.isdigit() else address).strip("[]").lower()


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost") or host.endswith(".localhost") or host.startswith("unix:")


def _is_excepted(host: str, environ: Mapping[str, str]) -> bool:
    listed = next((environ[each] for each in EXCEPTIONS if environ.get(each)), "")
    for entry in (part.strip().lower() for part in listed.split(",")):
        if entry == "*" or (entry and host.endswith(entry.lstrip("*"))):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False
