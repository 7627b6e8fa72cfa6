"""The packet filter of a node, for nft(8): what no launcher's own boundary keeps from applications.

What it drops
    * To an application's ports that only the agent asks: those of readiness, and of signalling where the agent checks
      who comes in front of it. They are reached over the node's loopback alone, wherever an application listens.
    * To the address that units of systemd answer, of the loopback network (``LauncherTraits.asked_from``): whatever
      begins a connection. Units may send to it, so one could take it for its own and reach what another listens on.
    * From containers with a network of their own: what begins a connection to the node itself (name servers excepted),
      to another container, to link-local addresses, where clouds keep credentials, and to networks that the operator
      denies. Answers to whoever connected to a container pass.
    * To such containers: whatever was not sent to a published port of the node. A neighbour who routes to their own
      addresses by way of the node would pass engines, also to ports that are published on loopback alone.

The rules depend on the settings alone, so they are loaded once, by root, before the agent: ``footlights firewall
--load``, in its unit. The agent itself may not look at them; it compares what was loaded with what it would load, and
its node says where they differ.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

from footlights.errors import FailedPrecondition, InvalidArgument, LocalReason
from footlights.launch.launcher import PORTS_OF_A_LAUNCH
from footlights.launch.launchers import SYSTEMD

if TYPE_CHECKING:
    from collections.abc import Iterable

LOADED: Final = Path("/run/footlights-firewall.nft")
"""The rules that were loaded last in this boot."""
POOL_BITS: Final = 16
ALWAYS_DENIED: Final = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16")
_LOAD_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallSettings:
    """What the rules depend on; an agent's settings have the same names."""

    first_port: int = 20000
    """First port of the range for launches."""
    last_port: int = 29999
    """Last port of the range."""
    container_subnets: str = "10.213.0.0/16"
    """The network that containers' own networks are parts of."""
    denied_networks: tuple[str, ...] = ()
    """A network that applications do not reach, such as ``10.0.0.0/8``; repeatable."""
    allowed_networks: tuple[str, ...] = ()
    """A network, or address, that containers reach although it is denied, or the node's own; repeatable."""

    def __post_init__(self) -> None:
        for name in ("denied_networks", "allowed_networks"):
            for text in getattr(self, name):
                if _network(text) is None:
                    problem = f"{text!r} is not a network. Give one as ADDRESS/BITS, such as 10.0.0.0/8."
                    raise InvalidArgument(name, problem)
        pool = _network(self.container_subnets)
        if pool is None or pool.version != 4 or pool.prefixlen != POOL_BITS:
            text = f"{self.container_subnets!r} is not a network of IPv4 with {POOL_BITS} bits, such as 10.213.0.0/16."
            raise InvalidArgument("container_subnets", text)

    @classmethod
    def of(cls, settings: object) -> FirewallSettings:
        """Take those of a record that has them."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


def rules(settings: FirewallSettings) -> str:
    """Write the rules; loading them replaces those that were loaded before."""
    blocks = range(settings.first_port, settings.last_port - PORTS_OF_A_LAUNCH + 2, PORTS_OF_A_LAUNCH)
    inner = ", ".join(f"{first + 2}-{first + 3}" for first in blocks)
    pool = settings.container_subnets
    allowed = _accepting(settings.allowed_networks)
    denied = ", ".join(_of_version_4((*ALWAYS_DENIED, *settings.denied_networks)))
    return f"""\
table inet footlights
delete table inet footlights
table inet footlights {{
    set inner {{
        type inet_service
        flags interval
        elements = {{ {inner} }}
    }}
    chain input {{
        type filter hook input priority -10; policy accept;
        ip daddr {SYSTEMD.asked_from} ct state new drop
        tcp dport @inner ip daddr != 127.0.0.0/8 drop
        tcp dport @inner ip6 daddr != ::1 drop
        ip saddr != {pool} accept
        ct state established,related accept
        meta l4proto {{ tcp, udp }} th dport 53 accept{allowed}
        ip saddr {pool} meta l4proto != icmp drop
    }}
    chain forward {{
        type filter hook forward priority -10; policy accept;
        ct state established,related accept
        ip daddr {pool} ct status & dnat == 0 drop
        ip saddr != {pool} accept
        ip saddr {pool} ip daddr {pool} drop{allowed}
        ip saddr {pool} ip daddr {{ {denied} }} drop
    }}
}}
"""


def load(settings: FirewallSettings, *, noted: Path = LOADED) -> None:
    """Load the rules. Blocking. Raises FailedPrecondition: nft is missing, or refused them."""
    text, nft = rules(settings), shutil.which("nft", path=f"{os.defpath}:/usr/sbin:/sbin")
    if nft is None:
        raise _not_loaded("nft is not installed: install nftables.")
    noted.unlink(missing_ok=True)
    done = subprocess.run([nft, "-f", "-"], input=text, capture_output=True, text=True, check=False, timeout=_LOAD_S)
    if done.returncode != 0:
        raise _not_loaded(f"nft refused the rules: {done.stderr.strip()[:500]}")
    draft = noted.with_suffix(".new")
    draft.write_text(text)
    draft.chmod(0o644)
    draft.replace(noted)


def shortcoming(settings: FirewallSettings, *, noted: Path = LOADED) -> str:
    """Say what holds without the rules, where they were not loaded; empty where they were. Blocking."""
    try:
        found = noted.read_text() if noted.stat().st_uid == 0 else ""
    except OSError:
        found = ""
    if found == rules(settings):
        return ""
    why = "is another one than these settings make" if found else "is not loaded"
    return (
        f"the packet filter {why}: containers reach the node's own and link-local addresses, and applications' inner "
        "ports are reached from elsewhere. Run footlights firewall --load as root, with the agent's settings"
    )


def part_of(pool: str, number: int) -> str:
    """Return the network, of two addresses, of one container; ``number`` is below 16128."""
    return str(_nth(ipaddress.IPv4Network(pool), number, 30))


def shared_part_of(pool: str) -> str:
    """Return the network that containers share where their engine keeps those of one network apart."""
    return str(_nth(ipaddress.IPv4Network(pool), 63, 22))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def _nth(pool: ipaddress.IPv4Network, number: int, bits: int) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network((int(pool.network_address) + (number << (32 - bits)), bits))


def _of_version_4(networks: Iterable[str]) -> list[str]:
    """Return those of IPv4, which is all that containers have, none in another one: nft would refuse that."""
    found = [network for text in networks if isinstance(network := _network(text), ipaddress.IPv4Network)]
    return [str(network) for network in ipaddress.collapse_addresses(found)]


def _accepting(networks: Iterable[str]) -> str:
    found = ", ".join(_of_version_4(networks))
    return f"\n        ip daddr {{ {found} }} accept" if found else ""


def _not_loaded(text: str) -> FailedPrecondition:
    return FailedPrecondition(f"the packet filter was not loaded: {text}", reason=LocalReason.FIREWALL_NOT_LOADED)
