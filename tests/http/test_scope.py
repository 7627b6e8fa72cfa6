"""Reading an ASGI scope; and ``status``, HTTP statuses of gRPC codes."""

from __future__ import annotations

import grpc
import pytest

from footlights.http.scope import header, path_below_mount
from footlights.http.status import HTTP_STATUS


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/a/b", "", "/a/b"),
        ("/api/a", "/api", "/a"),
        ("/api", "/api", "/"),
        ("/api/", "/api", "/"),
        ("/apis/a", "/api", "/apis/a"),
        ("/a", "/api", "/a"),
    ],
)
def test_path_below_mount(path: str, root: str, below: str) -> None:
    """
    The mount's path is taken off where the path lies below it, and only there.
    """
    assert path_below_mount({"path": path, "root_path": root}) == below


def test_header() -> None:
    """
    The first of several headers of a name counts; one that is missing is empty.
    """
    scope = {"headers": [(b"a", b"1"), (b"b", b"2"), (b"b", b"3")]}

    assert (header(scope, b"b"), header(scope, b"c")) == (b"2", b"")


def test_every_code_has_a_status() -> None:
    """
    Every gRPC code has an HTTP status.
    """
    assert set(HTTP_STATUS) == {code.value[0] for code in grpc.StatusCode}
