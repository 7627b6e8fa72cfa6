"""Messages of the agents' link and those of the public API that show the same: the bytes of one are read as the other.

Each side of the link works with the public ones, and turns them into the link's, or back, here. What the link has no
field for is kept where an agent of a later release may know it (recipes), and dropped where the control plane would
believe an agent (devices and facts).
"""

from __future__ import annotations

import hashlib

from footlights.agent.v1 import node_pb2 as link_node_pb2
from footlights.agent.v1 import recipe_pb2
from footlights.v1 import application_pb2, node_pb2


def recipe(version: application_pb2.Version) -> recipe_pb2.Recipe:
    """Return a version as an agent is sent it."""
    return recipe_pb2.Recipe.FromString(version.SerializeToString())


def version(carried: recipe_pb2.Recipe) -> application_pb2.Version:
    """Return a recipe as the version that it is."""
    return application_pb2.Version.FromString(carried.SerializeToString())


def digest(carried: recipe_pb2.Recipe) -> bytes:
    """Return what assignments name a recipe by: equal recipes have one digest, in this process."""
    return hashlib.sha256(carried.SerializeToString(deterministic=True)).digest()


def limits(applied: application_pb2.Limits) -> recipe_pb2.Limits:
    """Return limits as an agent is sent them."""
    return recipe_pb2.Limits.FromString(applied.SerializeToString())


def facts(sent: link_node_pb2.NodeFacts) -> node_pb2.NodeFacts:
    """Return what an agent says of its node; members that the link does not have are dropped."""
    return node_pb2.NodeFacts.FromString(_known(sent))


def device(sent: link_node_pb2.Device) -> node_pb2.Device:
    """Return what an agent says of a device; members that are the control plane's own are dropped."""
    return node_pb2.Device.FromString(_known(sent))


def _known(sent: link_node_pb2.NodeFacts | link_node_pb2.Device) -> bytes:
    sent.DiscardUnknownFields()
    return sent.SerializeToString()
