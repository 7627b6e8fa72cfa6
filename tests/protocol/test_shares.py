"""What is left of a device. What follows for launches is tested with ``devices/admission`` and ``scheduler/checks``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from footlights.protocol.shares import encoder_full, memory_left

SIZES = st.integers(0, 1 << 40)


@given(free=SIZES, total=SIZES, promises=st.lists(SIZES, max_size=4), data=st.data())
def test_no_promise_is_given_away(free: int, total: int, promises: list[int], data: st.DataObject) -> None:
    """Whatever sessions use of what they were promised, the rest of it stays; nothing more is kept."""
    used = sum(data.draw(st.integers(0, promise)) for promise in promises)
    left = memory_left(free, total, kept=sum(promises), used=used)
    assert left == max(0, free - (sum(promises) - used))
    unseen = memory_left(free, total, kept=sum(promises), used=None)
    assert unseen is not None
    assert unseen <= free


def test_more_used_than_promised_by_an_old_reading() -> None:
    """A session that has ended may still be in the reading: nothing is kept for it, and nothing is given for it."""
    assert memory_left(18, 48, kept=0, used=30) == 18


def test_what_is_not_known_refuses_nothing() -> None:
    """Memory that no driver reports, an encoder of which nothing is known."""
    assert memory_left(None, None, kept=30, used=None) is None
    assert memory_left(None, 48, kept=30, used=None) == 18
    assert encoder_full(None, promised=7, limit=None, capacity=None) == ""
