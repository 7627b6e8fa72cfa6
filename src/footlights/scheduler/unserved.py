"""What no node could ever serve: which of a wish's needs nobody meets, whatever ends or comes back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from footlights.protocol.isolation import Isolation
from footlights.scheduler.checks import GIB, capability_refusal, isolation_name
from footlights.scheduler.views import Wish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from footlights.scheduler.views import DeviceView

UNSERVED = "UNSATISFIABLE"
"""The reason of a wish that is set aside."""
LASTING = ("NO_LAUNCHER", "ISOLATION", "LABEL", "NO_GPU", "NO_GRAPHICS", "NO_ENCODER", "DEVICE_NAME", "SLOTS")
"""The reasons that are told beside it: by what does not change while a node is there."""


@dataclass(frozen=True, slots=True)
class _Need:
    """One need of a wish: what is said where nobody meets it, what it is called beside others, and the wish for it."""

    lacking: str
    name: str
    wish: dict[str, Any]


def able(wish: Wish, device: DeviceView, memory_total_bytes: int | None) -> bool:
    """Return whether the device would do if it were free and well; ``memory_total_bytes`` is None if not known."""
    if capability_refusal(wish, device) is not None:
        return False
    return memory_total_bytes is None or memory_total_bytes >= wish.min_memory_bytes


def lacking(wish: Wish, could: Callable[[Wish], bool]) -> str:
    """Say which needs of a wish nobody meets, for a person.

    Args:
        wish: One that no node could serve.
        could: Whether any node could serve a wish; one for the launcher "" may have any.
    """
    needs = list(_needs(wish))
    if alone := [need.lacking for need in needs if not could(_wish(need))]:
        return "; ".join(alone)
    pairs = (pair for pair in combinations(needs, 2) if not could(_wish(*pair)))
    together = next(pairs, tuple(needs))
    return f"no node has all of this at once: {', '.join(need.name for need in together)}"


def _needs(wish: Wish) -> Iterator[_Need]:
    isolated = f" with the isolation {isolation_name(wish.isolation)}" if wish.isolation > Isolation.NONE else ""
    launcher = f"the {wish.launcher} launcher{isolated}"
    yield _Need(f"no node offers {launcher}", launcher, {"launcher": wish.launcher, "isolation": wish.isolation})
    for key, value in wish.node_labels.items():
        label = f"the label {key}={value}"
        yield _Need(f"no node has {label}", label, {"node_labels": {key: value}})
    if wish.gpu:
        yield _Need("no node has a GPU", "a GPU", {"gpu": True})
    if wish.graphics:
        yield _Need("no device can draw", "a device that can draw", {"graphics": True})
    if wish.encoder:
        yield _Need("no device has a hardware video encoder", "a hardware video encoder", {"encoder": True})
    if wish.device_names:
        names = " or ".join(wish.device_names)
        yield _Need(f"no device is named {names}", f"a device named {names}", {"device_names": wish.device_names})
    if wish.slots > 1:
        slots = f"{wish.slots} slots on one device"
        yield _Need(f"no node has {slots}", slots, {"slots": wish.slots})
    if wish.min_memory_bytes:
        memory = f"{wish.min_memory_bytes / GIB:.1f} GiB of memory on one device"
        yield _Need(f"no node has {memory}", memory, {"min_memory_bytes": wish.min_memory_bytes})


def _wish(*needs: _Need) -> Wish:
    wanted: dict[str, Any] = {"launcher": "", "node_labels": {}}
    for need in needs:
        labels = wanted["node_labels"] | need.wish.get("node_labels", {})
        wanted |= need.wish | {"node_labels": labels}
    return Wish("", **wanted)
