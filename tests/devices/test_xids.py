"""Which XIDs are a GPU's own: as NVIDIA's catalog says by its immediate action."""

from __future__ import annotations

import pytest

from footlights.devices import xids

RESTART_APP = {
    *(8, 11, 13, 25, 31, 32, 39, 40, 41, 60, 68, 69, 70, 71, 72, 75, 76, 77, 80, 82, 83, 84, 85, 86, 88, 89, 94),
    *range(96, 106),
    *range(126, 136),
    139,
}
IGNORE = {14, 37, 38, 43, 44, 63, 66, 67, 92, 93, 106, 107, 108, 121, 137, 141, 152, 153, 157, 160, 161}
RESET_GPU = {46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158}
OTHER_ACTIONS = {48, 54, 74, 78, 79, *range(144, 152), 159}
"""A workflow, power, software, or a restart of the machine."""


@pytest.mark.parametrize("xid", sorted(RESTART_APP | IGNORE))
def test_an_applications_error_costs_the_gpu_nothing(xid: int) -> None:
    """What NVIDIA says to ignore, or to restart the application for, leaves the GPU in use."""
    assert not xids.matters(xid)


@pytest.mark.parametrize("xid", sorted(RESET_GPU))
def test_what_needs_a_reset_takes_the_gpu_out_of_use(xid: int) -> None:
    """It is said what the error means, and how to reset; also of 109, which other software takes for harmless."""
    assert xids.matters(xid)
    assert f"XID {xid} (" in xids.explain(xid)
    assert "--gpu-reset" in xids.explain(xid)


@pytest.mark.parametrize("xid", sorted(OTHER_ACTIONS))
def test_what_needs_more_takes_the_gpu_out_of_use(xid: int) -> None:
    """A lost board, power or link is the GPU's, and explained."""
    assert xids.matters(xid)
    assert f"XID {xid} (" in xids.explain(xid)


def test_a_lost_board_asks_for_a_restart() -> None:
    """A reset does not bring it back."""
    assert "restart the machine" in xids.explain(79)


@pytest.mark.parametrize("xid", [113, 114])
def test_a_monitors_error_is_not_the_gpus(xid: int) -> None:
    """A cable that is pulled costs no session its GPU."""
    assert not xids.matters(xid)


@pytest.mark.parametrize("xid", [2, 65, 199, 100_000])
def test_an_unknown_error_is_the_gpus(xid: int) -> None:
    """A later driver may mean anything by it."""
    assert xids.matters(xid)
    assert f"XID {xid};" in xids.explain(xid)
