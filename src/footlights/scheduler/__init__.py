"""Placement: wishes and nodes in, decisions with reasons out. Pure: no clock, no store, no third party.

* `Index` (`index`, on top of `fleet_state`) keeps the fleet in memory and chooses in microseconds among tens of
  thousands of devices: nodes as sets of bits (`nodesets`, `node_directory`), devices in cells of equals
  (`device_cells`), and wishes that ask for the same matched once (`wish_shapes`).
* `checks` says why a node or device is refused, in one fixed order; `explanation` applies them to one wish and every
  device. The index is built from the same checks, and tests compare each of its choices and reasons with a search
  through all devices.
* `unserved` says which need of a wish no node could ever meet.
* `forecast` plays the queue forward over what is known to end, and says when each wish would be placed.

An index gives a slot at most once. That a slot is given at most once *at all* is enforced by the store's unique
index, not by this package's memory.
"""

from footlights.scheduler.checks import device_refusal, node_refusal, standing_refusal
from footlights.scheduler.explanation import (
    NOT_TO_BE_WAITED_FOR,
    DeviceVerdict,
    NodeVerdict,
    WaitReason,
    verdicts,
)
from footlights.scheduler.forecast import Forecast, LeaseEnd, WaitingWish
from footlights.scheduler.index import Index
from footlights.scheduler.views import NO_SHARE, DeviceView, NodeView, Share, SlotChoice, Verdict, Wish

__all__ = [
    "DeviceVerdict",
    "DeviceView",
    "Forecast",
    "Index",
    "LeaseEnd",
    "NO_SHARE",
    "NOT_TO_BE_WAITED_FOR",
    "NodeVerdict",
    "NodeView",
    "Share",
    "SlotChoice",
    "Verdict",
    "WaitReason",
    "WaitingWish",
    "Wish",
    "device_refusal",
    "node_refusal",
    "standing_refusal",
    "verdicts",
]
