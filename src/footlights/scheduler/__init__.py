"""Placing: (wishes, nodes) -> decisions with reasons. Pure: no clock, no store, no third party.

``place`` decides for a whole queue in order; ``verdicts`` explains one wish against every device with the same
checks, so that an explanation can never disagree with a decision. A slot is given at most once in one call; that it
is given at most once *at all* is the store's unique index, not this package's memory.
"""

from footlights.scheduler.checks import device_refusal, node_refusal
from footlights.scheduler.explaining import DeviceVerdict, NodeVerdict, reasons, verdicts
from footlights.scheduler.placing import Placement, Waiting, place
from footlights.scheduler.queueing import eta_s
from footlights.scheduler.views import DeviceView, NodeView, Refusal, Wish

__all__ = [
    "DeviceVerdict",
    "DeviceView",
    "NodeVerdict",
    "NodeView",
    "Placement",
    "Refusal",
    "Waiting",
    "Wish",
    "device_refusal",
    "eta_s",
    "node_refusal",
    "place",
    "reasons",
    "verdicts",
]
