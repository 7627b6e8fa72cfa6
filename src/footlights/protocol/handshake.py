"""What the two sides of an agents' link find out about each other first: versions, and features by name.

A version is for what cannot be added: a link is refused where the ranges do not meet. All else is a feature, used where
both sides name it.
"""

from __future__ import annotations

from typing import Final

from footlights.agent.v1.agent_pb2 import Protocol
from footlights.protocol.bounds import MAX_MESSAGE_BYTES, PART_BYTES

LEAST: Final = 1
GREATEST: Final = 1
PARTS: Final = "parts"
"""Sets come in parts."""
RECIPES: Final = "recipes"
"""Recipes are carried once a link; assignments name them by digest."""
GOODBYE: Final = "goodbye"
"""The end of a link is said, with a reason."""
REDIRECT: Final = "redirect"
"""The agent dials the addresses that it is told."""
SECRETS_ONCE: Final = "secrets_once"
"""The agent keeps the secrets of a launch that it has not started, whatever is assigned later."""
SECRET_VARIABLES: Final = "secret_variables"  # noqa: S105  # the name of a feature
"""The agent puts secrets into the environment of an application whose version says so."""
STAGES: Final = "stages"
"""The agent sends the stage to an application, or has it in its session file, where its version says so."""
AHEAD: Final = "ahead"
"""The agent starts instances ahead, and hands them over to sessions."""
RELAYS: Final = "relays"
"""The agent asks for the relay of a launch."""
FEATURES: Final = (PARTS, RECIPES, GOODBYE, REDIRECT, SECRETS_ONCE, SECRET_VARIABLES, STAGES, AHEAD, RELAYS)

_SETS: Final[dict[frozenset[str], frozenset[str]]] = {}


def ours() -> Protocol:
    """Return what this release understands."""
    return Protocol(least=LEAST, greatest=GREATEST, features=FEATURES, max_message_bytes=MAX_MESSAGE_BYTES)


def meets(theirs: Protocol) -> bool:
    """Say whether there is a version that both sides understand."""
    return theirs.least <= GREATEST and theirs.greatest >= LEAST


def part_bytes(theirs: Protocol) -> int:
    """Return how large the parts of a set may be that the other side is sent."""
    return min(PART_BYTES, theirs.max_message_bytes or PART_BYTES)


def shared(theirs: Protocol) -> frozenset[str]:
    """Return the features that both sides understand."""
    found = frozenset(theirs.features) & frozenset(FEATURES)
    # Thousands of links share the same few sets.
    return _SETS.setdefault(found, found)
