"""Ids and names: which are valid, and what is said of one that is not."""

from __future__ import annotations

import uuid

import pytest

from footlights import ids
from footlights.errors import InvalidArgument


def test_new_ids_are_ordered_by_time() -> None:
    """Ids are UUIDs in canonical form, and a later one sorts after an earlier one."""
    made = [ids.new_id() for _ in range(100)]

    assert made == sorted(made)
    assert all(ids.is_uuid(one) and uuid.UUID(one).version == 7 for one in made)


@pytest.mark.parametrize("value", ["a", "usd-viewer", "a" * 63, "a1-2-3"])
def test_valid_ids(value: str) -> None:
    """Lower-case letters, digits and hyphens, starting with a letter, up to 63 characters."""
    assert ids.check_slug("application", value) == value


@pytest.mark.parametrize("value", ["", "1a", "A", "a-", "a_b", "a" * 64, "a\n", "ä"])
def test_invalid_ids(value: str) -> None:
    """The error names the field and the value, and describes a valid id."""
    with pytest.raises(InvalidArgument, match=r"application: invalid id .*; use lower-case letters") as caught:
        ids.check_slug("application", value)

    assert caught.value.metadata == {"field": "application", "value": value}


@pytest.mark.parametrize("value", ["gpu-01", "10.0.0.1", "node.example.com", "a" * 253])
def test_valid_node_names(value: str) -> None:
    """What a host name may be, in lower case."""
    assert ids.check_node("node", value) == value


@pytest.mark.parametrize("value", ["", "-a", "GPU", "a_b", "a" * 254, "a\n"])
def test_invalid_node_names(value: str) -> None:
    """The error names the field and the value, and describes a valid name."""
    with pytest.raises(InvalidArgument, match=r"node: invalid node name .*; use lower-case letters"):
        ids.check_node("node", value)


def test_a_callers_request_id_is_kept_if_it_is_visible_ascii() -> None:
    """Anything else is replaced by a new id: it goes into logs and headers."""
    assert ids.request_id("abc-123") == "abc-123"
    assert all(ids.is_uuid(ids.request_id(text)) for text in ("", "a b", "x" * 129, "a\n"))


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("127.0.0.2", True), ("[::1]", True), ("10.0.0.1", False), ("example.com", False)],
)
def test_loopback(host: str, local: bool) -> None:
    """Only addresses that no other machine reaches are loopback."""
    assert ids.is_loopback(host) is local
