"""NVIDIA's XIDs, the critical errors that a driver reports of a GPU: whether one says something about the GPU. Pure.

The table follows NVIDIA's *Xid Catalog* for Ampere and later, by its column of immediate actions. An XID that it does
not list, or lists as unused, is taken for the GPU's own: a later driver may mean anything by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_RESTART_APP: Final = frozenset(
    {
        *(
            8,
            11,
            13,
            25,
            31,
            32,
            39,
            40,
            41,
            45,
            60,
            68,
            69,
            70,
            71,
            72,
            75,
            76,
            77,
            80,
            82,
            83,
            84,
            85,
            86,
            88,
            89,
            94,
        ),
        *range(96, 106),
        *range(126, 136),
        *(139, 142),
    }
)
"""The application must be restarted, and has been ended: its own fault, or one that was contained in it (94). An engine
of the GPU that raised an exception is reset by the driver."""
_IGNORE: Final = frozenset(
    {
        *(14, 37, 38, 43, 44, 63, 66, 67, 92, 93, 106, 107, 108, 121, 137, 141, 152, 153, 154, 157),
        *range(160, 166),
        168,
    }
)
"""Information. What counts of it is read anyway: remapped rows (63), corrected errors (92), the recovery action (154),
the size of the memory (168)."""
_DISPLAY: Final = frozenset(range(112, 119))
"""Of a monitor's connection: nothing to a session."""
_OF_NO_CONCERN: Final = _RESTART_APP | _IGNORE | _DISPLAY

_MEANINGS: Final[Mapping[int, str]] = {
    46: "the GPU stopped processing",
    48: "an uncorrectable memory error",
    54: "the board's auxiliary power is not connected",
    62: "its micro-controller halted",
    64: "a memory row could not be recorded as bad",
    74: "an NVLink error",
    78: "a vGPU could not start",
    79: "it has fallen off the bus",
    95: "a memory error that was not contained",
    109: "a context switch timed out",
    110: "a security fault",
    119: "its system processor (GSP) does not answer",
    120: "its system processor (GSP) failed",
    136: "a link could not be trained",
    140: "memory errors that could not be recorded",
    143: "it could not be initialized",
    151: "a key could not be rotated",
    155: "an NVLink went down",
    156: "a part of it was retired",
    158: "it timed out for good",
    159: "an error on the link to the CPU",
    167: "PCI Express timed out for good",
    169: "its security processor halted",
    171: "an uncorrectable error in its memory",
    172: "an uncorrectable error in its caches",
    **dict.fromkeys(range(144, 151), "an NVLink error"),
}
_FIXES: Final[Mapping[int, str]] = {
    54: "check its power connectors",
    78: "update the driver or the vGPU software",
    79: "restart the machine",
    151: "restart the virtual machine",
}
_RESET: Final = "reset the GPU: nvidia-smi --gpu-reset"


def matters(xid: int) -> bool:
    """Whether an XID says something about the GPU, rather than about an application or a monitor."""
    return xid not in _OF_NO_CONCERN


def explain(xid: int) -> str:
    """A sentence for an operator on an XID that matters: what it means, and what to do."""
    meaning = f" ({_MEANINGS[xid]})" if xid in _MEANINGS else ""
    return f"critical error XID {xid}{meaning}; see dmesg, then {_FIXES.get(xid, _RESET)}"
