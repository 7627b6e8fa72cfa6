"""Placing: wishes and nodes -> decisions with reasons. Pure: no clock, no store, no third party.

``Index`` keeps the fleet in memory and chooses in microseconds among tens of thousands of devices; ``place`` is the
same for a fleet that is not kept. ``verdicts`` explains one wish against every device with the checks that the index
was made from, and tests hold every choice and every reason of the index against a search through all devices. A slot
is given at most once by one index; that it is given at most once *at all* is the store's unique index, not this
package's memory.
"""

from footlights.scheduler.checks import device_refusal, node_refusal
from footlights.scheduler.decisions import Placement, Waiting
from footlights.scheduler.explaining import DeviceVerdict, NodeVerdict, verdicts
from footlights.scheduler.index import Index
from footlights.scheduler.placing import place
from footlights.scheduler.queueing import eta_s
from footlights.scheduler.views import DeviceView, NodeView, Refusal, Wish

__all__ = [
    "DeviceVerdict",
    "DeviceView",
    "Index",
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
    "verdicts",
]
