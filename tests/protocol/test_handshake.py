"""Whether two sides of a link understand each other."""

from __future__ import annotations

import pytest
from footlights.agent.v1.agent_pb2 import Protocol

from footlights.protocol import handshake
from footlights.protocol.bounds import PART_BYTES


@pytest.mark.parametrize(
    ("least", "greatest", "meets"),
    [(1, 1, True), (1, 7, True), (0, 1, True), (2, 7, False), (0, 0, False)],
)
def test_a_link_needs_one_version_that_both_understand(least: int, greatest: int, meets: bool) -> None:
    """Ranges, not equal numbers: a release that understands more goes on understanding this one."""
    assert handshake.meets(Protocol(least=least, greatest=greatest)) == meets


def test_parts_are_as_small_as_the_other_side_needs_them() -> None:
    """And of our own size where it does not say."""
    sizes = [handshake.part_bytes(Protocol(max_message_bytes=size)) for size in (0, 1000, 1 << 30)]

    assert sizes == [PART_BYTES, 1000, PART_BYTES]


def test_features_that_one_side_does_not_know_are_ignored() -> None:
    """What both name is used."""
    theirs = Protocol(least=1, greatest=2, features=["telepathy", handshake.RECIPES])

    assert handshake.shared(theirs) == {handshake.RECIPES}
    assert handshake.shared(handshake.ours()) == set(handshake.FEATURES)
    assert handshake.shared(Protocol()) == frozenset()
