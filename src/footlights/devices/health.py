"""Whether a GPU may be given to a session, judged from what its driver says. Pure.

Thresholds follow NVIDIA's *GPU Memory Error Management* and *Dynamic Page Retirement* guides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.devices import xids as xids_of_gpus
from footlights.devices.reading import DeviceHealth, HealthReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from footlights.devices.answers import Answers

CORRECTED_WORTH_A_LOOK = 100
"""Corrected memory errors since the driver loaded. Our choice: a few are normal on a healthy board."""
RETIRED_PAGES_LIMIT = 60

_SEVERITY = {DeviceHealth.OK: 0, DeviceHealth.DEGRADED: 1, DeviceHealth.UNHEALTHY: 2, DeviceHealth.LOST: 3}

_REBOOTS = frozenset({"NODE_REBOOT", "SYSTEM_REBOOT"})
"""Recovery that no device can have alone: the whole node is taken out of use until it has been rebooted."""

_ACTIONS = {
    "GPU_RESET": DeviceHealth.UNHEALTHY,
    "BUS_RESET": DeviceHealth.UNHEALTHY,
    "DRAIN_AND_RESET": DeviceHealth.UNHEALTHY,
    "DRAIN_P2P": DeviceHealth.DEGRADED,
    "RECOVER_IMEX_DOMAIN": DeviceHealth.DEGRADED,
}


def judge(answers: Answers, xids: Sequence[int]) -> tuple[DeviceHealth, tuple[HealthReason, ...]]:
    """Health and its reasons, the gravest first. ``xids``: recent critical errors that are the GPU's own fault."""
    found = sorted(_findings(answers, xids), key=lambda finding: -_SEVERITY[finding[0]])
    if not found:
        return DeviceHealth.OK, ()
    return found[0][0], tuple(reason for _, reason in found)


def worst(first: DeviceHealth, second: DeviceHealth) -> DeviceHealth:
    """The graver of two."""
    return max(first, second, key=_SEVERITY.__getitem__)


def _findings(answers: Answers, xids: Sequence[int]) -> Iterable[tuple[DeviceHealth, HealthReason]]:
    yield from _errors(answers)
    yield from _memory(answers)
    action = answers.recovery_action
    if action in _REBOOTS:
        yield DeviceHealth.UNHEALTHY, HealthReason("NODE_REBOOT_NEEDED", "the driver asks for a reboot of the machine")
    if action in _ACTIONS:
        text = f"the driver asks for recovery: {action.replace('_', ' ').lower()}"
        yield _ACTIONS[action], HealthReason("RECOVERY_NEEDED", text)
    for xid in xids:
        yield DeviceHealth.UNHEALTHY, HealthReason(f"XID_{xid}", xids_of_gpus.explain(xid))


def _errors(answers: Answers) -> Iterable[tuple[DeviceHealth, HealthReason]]:
    codes = {error.code for error in answers.failures.values()}
    if "GPU_IS_LOST" in codes:
        text = "fell off the bus; see dmesg for XID 79, then reset or reboot"
        yield DeviceHealth.LOST, HealthReason("GPU_IS_LOST", text)
    if "RESET_REQUIRED" in codes:
        yield DeviceHealth.UNHEALTHY, HealthReason("RESET_REQUIRED", "the GPU must be reset: nvidia-smi --gpu-reset")
    other = [e for e in answers.failures.values() if e.code not in ("GPU_IS_LOST", "RESET_REQUIRED")]
    if other:
        text = "; ".join(sorted({str(error) for error in other}))
        yield DeviceHealth.DEGRADED, HealthReason("QUERY_FAILED", text)


def _memory(answers: Answers) -> Iterable[tuple[DeviceHealth, HealthReason]]:
    if answers.ecc_uncorrected:
        text = f"{answers.ecc_uncorrected} uncorrectable memory errors since the driver loaded; reset the GPU"
        yield DeviceHealth.UNHEALTHY, HealthReason("ECC_UNCORRECTED", text)
    if answers.ecc_corrected is not None and answers.ecc_corrected >= CORRECTED_WORTH_A_LOOK:
        text = f"{answers.ecc_corrected} corrected memory errors since the driver loaded"
        yield DeviceHealth.DEGRADED, HealthReason("ECC_CORRECTED", text)
    rows = answers.remapped_rows
    if rows is not None and rows.failed:
        text = "a memory row could not be remapped; the board is due for return"
        yield DeviceHealth.UNHEALTHY, HealthReason("ROW_REMAP_FAILED", text)
    if rows is not None and rows.pending:
        text = "a row remap waits for the next reset of the GPU"
        yield DeviceHealth.DEGRADED, HealthReason("ROW_REMAP_PENDING", text)
    if answers.retired_pages is not None and answers.retired_pages >= RETIRED_PAGES_LIMIT:
        text = f"{answers.retired_pages} memory pages retired; from {RETIRED_PAGES_LIMIT} the board is due for return"
        yield DeviceHealth.UNHEALTHY, HealthReason("PAGES_RETIRED", text)
    if answers.retired_pages_pending:
        text = "a page retirement waits for the driver to reload"
        yield DeviceHealth.DEGRADED, HealthReason("PAGES_PENDING", text)
