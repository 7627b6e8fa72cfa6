"""The kinds of devices there are, and what each is like; `docs/adding.md` says what a new one takes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTraits:
    """What the other packages have to know of a kind of device."""

    hardware: bool = True
    """Whether it is a GPU, and not a renderer on the CPU."""
    lists_processes: bool = True
    """Whether its driver can say which processes are on it; where not, every device of the kind is free of others."""
    simulated: bool = False
    """Whether it is made up: nothing is drawn on it, and the process ids it lists are this machine's."""
    variables: tuple[str, ...] = ()
    """The environment variables that narrow what an application sees down to the UUIDs in them; empty they show none,
    as where the kind is no hardware."""
    cdi_class: str = ""
    """What container engines know it as (``nvidia.com/gpu``); empty where it needs no device node."""


_NVIDIA: Final = DeviceTraits(variables=("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"), cdi_class="nvidia.com/gpu")


class DeviceKind(enum.Enum):
    """What sort of thing a session runs on. The values are the protocol's."""

    GPU = "GPU"
    MIG = "MIG"
    SOFTWARE = "SOFTWARE"
    FAKE = "FAKE"

    @property
    def traits(self) -> DeviceTraits:
        """What the kind is like."""
        return _TRAITS[self]


_TRAITS: Final[Mapping[DeviceKind, DeviceTraits]] = {
    DeviceKind.GPU: _NVIDIA,
    DeviceKind.MIG: _NVIDIA,
    DeviceKind.SOFTWARE: DeviceTraits(hardware=False, lists_processes=False, variables=("CUDA_VISIBLE_DEVICES",)),
    DeviceKind.FAKE: DeviceTraits(simulated=True),
}


def traits_of_kind(name: str) -> DeviceTraits:
    """What the kind of that name is like; one that this release does not know is taken for a GPU."""
    return DeviceKind[name].traits if name in DeviceKind.__members__ else DeviceTraits()
