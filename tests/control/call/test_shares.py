"""What callers take that show nothing, in all and by address."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from footlights.control.call.shares import Shares
from footlights.errors import Reason, Unavailable


def test_one_address_takes_its_share_and_no_more() -> None:
    """From whatever ports; others are served until all are taken, and what is given back can be taken again."""
    shares = Shares("cups", most=5, most_of_one=2)
    with ExitStack() as taken:
        for peer in ("ipv4:192.0.2.1:1", "ipv4:192.0.2.1:2"):
            taken.enter_context(shares.take(peer))
        with pytest.raises(Unavailable, match="There are 2 cups of one address, as many as may be") as caught:
            taken.enter_context(shares.take("ipv4:192.0.2.1:3"))
        for peer in ("ipv4:192.0.2.2:1", "ipv6:%5B2001:db8::1%5D:1", "unix:"):
            taken.enter_context(shares.take(peer))
        with pytest.raises(Unavailable, match="There are 5 cups, as many as may be"):
            taken.enter_context(shares.take("ipv4:192.0.2.3:1"))

    assert (caught.value.reason, caught.value.retry_after_s) == (Reason.OVERLOADED, 1)
    with shares.take("ipv4:192.0.2.1:1"), shares.take("ipv4:192.0.2.1:2"):
        pass


def test_a_network_of_ipv6_takes_one_share() -> None:
    """One client has all of its addresses, and gets no more for that; another network is another client."""
    shares = Shares("cups", most=9, most_of_one=2)
    with ExitStack() as taken:
        for number in (1, 2):
            taken.enter_context(shares.take(f"ipv6:%5B2001:db8::{number}%5D:1"))
        with pytest.raises(Unavailable, match="There are 2 cups of one address"):
            taken.enter_context(shares.take("ipv6:%5B2001:db8::3%5D:1"))
        taken.enter_context(shares.take("ipv6:%5B2001:db8:0:1::3%5D:1"))
