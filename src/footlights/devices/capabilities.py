"""What a GPU can do, where the driver has no plain answer.

Sources: NVIDIA's Video Encode and Decode GPU Support Matrix; the Ampere and Hopper white papers; the MIG user guide.
"""

from __future__ import annotations

import re

_DATA_CENTRE_WITHOUT_NVENC = re.compile(
    r"\b(A100X?|A800|A30X?|H100|H800|H200|H20|GH200|B100|B200|B300|GB200|GB300|CMP 170HX)\b"
)
_SMALL_WITHOUT_NVENC = re.compile(r"\bGeForce (MX\d{3}|GT 10[13]0)\b")
_WITHOUT_RAY_TRACING = re.compile(r"\b(A100X?|A800|A30X?|H100|H800|H200|H20|GH200|CMP 170HX)\b")


def has_encoder(name: str, *, refused: bool) -> bool:
    """Whether a GPU has a hardware video encoder. ``refused``: the driver does not support asking for its capacity.

    Its other answers are no proof (a capacity of 0 is also a busy encoder), so boards known to have none are named.
    Another board is believed to have one: a wrong yes fails visibly at the launch, a wrong no hides a working GPU.
    """
    if refused:
        return False
    return not (_DATA_CENTRE_WITHOUT_NVENC.search(name) or _SMALL_WITHOUT_NVENC.search(name))


def profile_draws(profile: str) -> bool:
    """Whether a MIG profile offers graphics: only those marked ``+gfx`` do."""
    return "gfx" in profile.split("+")[1:]


def note(name: str) -> str:
    """A sentence on what a board lacks that its capabilities cannot say; empty for most."""
    if _WITHOUT_RAY_TRACING.search(name):
        return "no ray-tracing cores: Kit's RTX renderer does not run on it"
    return ""
