"""For how long something that has failed is left alone: a growing time, then another try. No clock is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure, by how long ago it began and ended, in seconds."""

    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """How many failures in which time are too many, and for how long they block; in seconds."""

    failures: int
    window_s: float
    first_s: float
    """The first block; each failed try after it doubles the next."""
    longest_s: float


@dataclass(frozen=True, slots=True)
class Block:
    """A block."""

    failures: int
    span_s: float
    """From the first to the last of them, in seconds."""
    left_s: float
    """How much longer it holds; 0 or less where it is over."""


def blocked(failures: Iterable[Failure], policy: BackoffPolicy) -> Block | None:
    """Say whether the failures since the last success forbid another try now; None where it may be made."""
    block = last_block(failures, policy)
    return block if block is not None and block.left_s > 0 else None


def last_block(failures: Iterable[Failure], policy: BackoffPolicy) -> Block | None:
    """Return the last block that the failures since the last success caused, which may be over; None where none did.

    A failure that began before a block did is a part of what caused it; only one that began after it is a failed try
    and doubles the next block. Failures of the future, which a clock that was set back leaves behind, do not count.
    """
    order = sorted((each for each in failures if each.ended_s >= 0), key=lambda each: -each.ended_s)
    blocks, since = 0, 0.0
    for number, failure in enumerate(order):
        if blocks:
            met = failure.began_s < since
        else:
            recent = [each for each in order[: number + 1] if each.ended_s - failure.ended_s < policy.window_s]
            met = len(recent) >= policy.failures
        if met:
            blocks, since = blocks + 1, failure.ended_s
    if not blocks:
        return None
    length = min(policy.longest_s, policy.first_s * 2 ** min(blocks - 1, 30))
    return Block(len(order), order[0].ended_s - order[-1].ended_s, length - since)
