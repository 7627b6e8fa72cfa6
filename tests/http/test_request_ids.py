"""Request ids."""

from __future__ import annotations

import uuid

import pytest

from footlights.http.request_ids import request_id


@pytest.mark.parametrize("given", [b"mine-1", b"!", b"x" * 128])
def test_usable(given: bytes) -> None:
    """
    A client's own id is kept.
    """
    assert request_id(given) == given.decode()


@pytest.mark.parametrize("given", [b"", b"a b", b"a\n", b"\xff", b"x" * 129])
def test_unusable(given: bytes) -> None:
    """
    What cannot be logged as it is gives way to a new id, a different one each time.
    """
    made = request_id(given)

    assert uuid.UUID(made).version == 7
    assert made != request_id(given)
