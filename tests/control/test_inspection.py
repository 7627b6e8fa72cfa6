"""Who may read metrics where clients reach the same listener."""

from __future__ import annotations

from typing import Any

import pytest

from footlights import errors
from footlights.auth.roles import Caller, Role
from footlights.control.inspection import Inspectors
from tests.control.harness import Control, problem

HERE = ("127.0.0.1", 40000)


class Known:
    """Knows tokens that are the names of roles."""

    async def caller(self, authorization: str, certificate: bytes = b"") -> Caller:
        name = authorization.removeprefix("Bearer ")
        if name not in list(Role):
            raise errors.Unauthenticated("unknown", reason=errors.Reason.TOKEN_INVALID)
        return Caller(name.lower(), Role(name), "id")


def scope(client: tuple[str, int] | None = HERE, host: str = "127.0.0.1:8080", **headers: str) -> dict[str, Any]:
    found = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    pairs = [(name.encode(), value.encode()) for name, value in found.items()]
    return {"client": client, "headers": pairs, "http_version": "1.1"}


@pytest.mark.parametrize(
    ("asked", "public_url"),
    [
        (scope(), ""),
        (scope(), "http://localhost:8080"),
        (scope(user_agent="Prometheus/3.5.0", accept="*/*", x_prometheus_scrape_timeout_seconds="10"), ""),
        (scope(user_agent="Mozilla/5.0", sec_fetch_mode="navigate", sec_ch_ua="x", accept_language="en"), ""),
        (scope(host="localhost:8080"), ""),
        (scope(("::1", 1), "[::1]:8080"), ""),
        (scope(("192.0.2.1", 1), "x", authorization="Bearer OPERATOR"), "https://streams.example.com"),
        (scope(None, "x", authorization="Bearer OPERATOR"), ""),
    ],
)
async def test_clients_on_this_machine_and_operators_may(asked: dict[str, Any], public_url: str) -> None:
    """Without a token from loopback, and from anywhere with an operator's."""
    assert await Inspectors(Known(), public_url).may(asked)


@pytest.mark.parametrize(
    ("asked", "public_url"),
    [
        pytest.param(scope(("192.0.2.1", 1)), "", id="elsewhere"),
        pytest.param(scope(None), "", id="an address that is not known"),
        pytest.param(scope(host="evil.example"), "", id="a page in a browser here, under its own name"),
        pytest.param(scope(), "https://streams.example.com", id="perhaps a proxy that says nothing"),
        pytest.param(scope(x_forwarded_for="192.0.2.1"), "", id="a proxy"),
        pytest.param(scope(forwarded="for=192.0.2.1"), "", id="a proxy in the standard's words"),
        pytest.param(scope(via="1.1 proxy"), "", id="a proxy that says only that it is one"),
        pytest.param(scope(x_forwarded_proto="https"), "", id="a proxy that says only how it was asked"),
        pytest.param(scope(x_forwarded_port="443"), "", id="a proxy that says only where it was asked"),
        pytest.param(scope(x_forwarded_server="x"), "", id="Apache"),
        pytest.param(scope(cf_connecting_ip="192.0.2.1"), "", id="a proxy of a cloud"),
        pytest.param(scope(x_envoy_external_address="192.0.2.1"), "", id="Envoy"),
        pytest.param(scope(x_of_a_later_year="192.0.2.1"), "", id="a proxy in words of its own"),
        pytest.param(scope() | {"http_version": "1.0"}, "", id="nginx with nothing set"),
        pytest.param(scope(host=""), "", id="no host"),
        pytest.param(scope(host="[::1"), "", id="no host that can be read"),
    ],
)
async def test_no_other_client_may_without_a_token(asked: dict[str, Any], public_url: str) -> None:
    """The error says what to send, or where else to ask."""
    with pytest.raises(errors.Unauthenticated, match=r"operator's token.*--admin-listen") as caught:
        await Inspectors(Known(), public_url).check(asked)

    assert caught.value.reason == errors.Reason.TOKEN_MISSING


async def test_a_token_without_the_permission_is_not_enough() -> None:
    """Nor is one that is not known."""
    inspectors = Inspectors(Known())
    for role in (Role.DEVELOPER, Role.SERVICE, Role.NODE):
        with pytest.raises(errors.PermissionDenied, match=r"metrics\.read"):
            await inspectors.check(scope(host="x", authorization=f"Bearer {role}"))
    with pytest.raises(errors.Unauthenticated):
        await inspectors.check(scope(host="x", authorization="Bearer nonsense"))


async def test_metrics_are_refused_as_the_api_refuses(plane: Control) -> None:
    """401 without a token and 403 with one that may not, in the API's own form."""
    nobody = await plane.rest("GET", "/metrics", "")
    developer = await plane.rest("GET", "/metrics", await plane.token("DEVELOPER", "ann"))

    assert (nobody.status_code, problem(nobody)["reason"]) == (401, "TOKEN_MISSING")
    assert (developer.status_code, problem(developer)["reason"]) == (403, "ROLE_LACKS_PERMISSION")
