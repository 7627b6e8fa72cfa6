"""The settings of a control plane, and their bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from footlights.control.settings import ServerSettings, split_address
from footlights.errors import InvalidArgument
from footlights.ids import is_loopback

HERE = Path("data")
FUNCTION = "0000abcd-0000-4000-8000-000000000000=kit"


def test_the_defaults_are_well() -> None:
    """Loopback only, SQLite, every origin."""
    settings = ServerSettings(HERE)

    assert (settings.grpc_listen, settings.http_listen) == ("127.0.0.1:50051", "127.0.0.1:8080")
    assert (settings.database, settings.cors_origins, settings.insecure) == ("", ("*",), False)


@pytest.mark.parametrize(
    ("members", "field", "says"),
    [
        ({"http_listen": "127.0.0.1"}, "http_listen", "must be HOST:PORT, as in 127.0.0.1:8080 (got '127.0.0.1')"),
        ({"http_listen": ":8080"}, "http_listen", "must be HOST:PORT"),
        ({"nvcf_functions": (FUNCTION,)}, "nvcf_functions", "is only for --nvcf"),
        ({"nvcf": True, "nvcf_functions": ("1=kit",)}, "nvcf_functions", "the ids UUIDs (got '1=kit')"),
        (
            {"nvcf": True, "nvcf_functions": (f"{FUNCTION}@1.0.0",)},
            "nvcf_functions",
            "ID/VERSION_ID=APPLICATION@VERSION",
        ),
        (
            {"nvcf": True, "nvcf_functions": (FUNCTION, FUNCTION.upper().replace("KIT", "kit"))},
            "nvcf_functions",
            "once",
        ),
        ({"nvcf": True, "roles": ("api",), "database": "postgresql://h/d"}, "nvcf", "roles api and frontdoor"),
        ({"ca_cert": HERE}, "ca_key", "Give both or neither"),
        ({"agents_address": "hub"}, "agents_address", "must be HOST:PORT"),
        ({"peers_listen": "x"}, "peers_listen", "must be HOST:PORT"),
        ({"admin_listen": "127.0.0.1:8080"}, "admin_listen", "'127.0.0.1:8080' is also that of --http-listen"),
        ({"agents_listen": "127.0.0.1:1", "redirect_agents": True}, "redirect_agents", "listener of their own"),
        ({"http_listen": "127.0.0.1:65536"}, "http_listen", "must be HOST:PORT"),
        ({"http_listen": "127.0.0.1:http"}, "http_listen", "must be HOST:PORT"),
        ({"http_listen": "127.0.0.1:²"}, "http_listen", "must be HOST:PORT"),
        ({"peer_address": "10.0.0.1"}, "peer_address", "must be HOST:PORT, as in 127.0.0.1:8080 (got '10.0.0.1')"),
        ({"tls_cert": HERE}, "tls_key", "Give both or neither"),
        ({"tls_key": HERE}, "tls_key", "Give both or neither"),
        ({"heartbeat_interval_s": 0}, "heartbeat_interval_s", "must be from 0.1 to 300 (got 0)"),
        ({"heartbeat_interval_s": float("nan")}, "heartbeat_interval_s", "(got nan)"),
        ({"heartbeat_interval_s": float("inf")}, "heartbeat_interval_s", "(got inf)"),
        ({"abandon_after_s": -1}, "abandon_after_s", "(got -1)"),
        ({"queue_limit": 0}, "queue_limit", "must be from 1 to 100000 (got 0): placement reads the whole queue"),
        ({"queue_limit": 100_001}, "queue_limit", "(got 100001)"),
        ({"max_concurrent_calls": 0}, "max_concurrent_calls", "(got 0)"),
        ({"max_concurrent_calls": 10_001}, "max_concurrent_calls", "(got 10001)"),
        ({"retention_days": 0}, "retention_days", "must be from 1 to 3650 (got 0)"),
        ({"retention_days": 10**9}, "retention_days", "must be from 1 to 3650"),
        ({"grant_ttl_s": 0}, "grant_ttl_s", "(got 0)"),
        ({"turn_ttl_s": 0}, "turn_ttl_s", "(got 0)"),
        ({"max_connection_age_s": 0}, "max_connection_age_s", "must be from 1 to 1.728e+06 (got 0)"),
        ({"limit_caps": ("max=1h",)}, "limit_caps", "unknown limit 'max' in 'max=1h'; choose from start_timeout"),
        ({"limit_caps": ("max_duration",)}, "limit_caps", "'max_duration': invalid duration ''; write it as 90s"),
        ({"limit_caps": ("idle_timeout=0",)}, "limit_caps", "must be more than 0s"),
        ({"limit_defaults": ("stop_grace_period=2h",)}, "limit_defaults", "at most 3600s"),
        (
            {"limit_defaults": ("idle_timeout=2h",), "limit_caps": ("idle_timeout=1h",)},
            "limit_defaults",
            "idle_timeout=7200s is more than the 3600s of --limit-caps",
        ),
        ({"roles": ("api,web",)}, "roles", "unknown value 'web'; choose from api, frontdoor, hub, loops"),
        ({"roles": ("api",)}, "roles", "only one process can use SQLite"),
        ({"turn_urls": ("stun:a:1",), "turn_secret_file": HERE}, "turn_urls", "must start with turn: or turns:"),
        ({"turn_urls": ("turn:a:1",)}, "turn_secret_file", "Give both or neither"),
        ({"turn_secret_file": HERE}, "turn_secret_file", "Give both or neither"),
        ({"log_format": "xml"}, "log_format", "unknown value 'xml'; choose from console, json"),
        ({"log_level": "loud"}, "log_level", "unknown value 'loud'; choose from debug, info, warning, error"),
        ({"min_isolation": "vm"}, "min_isolation", "unknown value 'vm'; choose from none, process, container"),
        ({"public_url": "streams.example.com"}, "public_url", "must start with http:// or https://"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(members: dict[str, Any], field: str, says: str) -> None:
    """By its name, its value and the fix, before anything is touched."""
    with pytest.raises(InvalidArgument) as caught:
        ServerSettings(HERE, **members)

    assert caught.value.field == field
    assert says in caught.value.message


@pytest.mark.parametrize(
    "members",
    [
        {"grpc_listen": "0.0.0.0:1", "insecure": True},
        {"grpc_listen": "0.0.0.0:1", "tls_cert": HERE, "tls_key": HERE},
        {"http_listen": "[::1]:0"},
        {"http_listen": "localhost:0"},
        {"public_url": "https://streams.example.com"},
    ],
)
def test_what_is_safe_or_said_on_purpose_is_taken(members: dict[str, Any]) -> None:
    """Beyond loopback with a certificate, or with --insecure: it makes none."""
    assert not ServerSettings(HERE, **members).needs_certificate


@pytest.mark.parametrize("name", ["grpc_listen", "http_listen", "admin_listen"])
@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "host.example.com:1"])
def test_what_leaves_this_machine_has_tls(name: str, address: str) -> None:
    """With a certificate of the control plane's own authority, where nobody gave another."""
    given: dict[str, Any] = {name: address}

    assert ServerSettings(HERE, **given).needs_certificate


@pytest.mark.parametrize("name", ["agents_listen", "peers_listen"])
def test_agents_and_replicas_prove_themselves_at_listeners_of_their_own(name: str) -> None:
    """On loopback too, and where something in front ends the TLS of clients."""
    given: dict[str, Any] = {name: "127.0.0.1:1"}

    assert ServerSettings(HERE, **given).is_mutual(name)
    assert ServerSettings(HERE, **given, insecure=True).is_mutual(name)
    assert not ServerSettings(HERE).is_mutual(name)


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:80", ("::1", 80)), ("a.example.com:65535", ("a.example.com", 65535))],
)
def test_addresses_are_split(text: str, address: tuple[str, int]) -> None:
    """IPv6 stands in brackets."""
    assert split_address("x", text) == address


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("h", False)],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, here: bool) -> None:
    """Names are not believed, except one."""
    assert is_loopback(host) == here


@pytest.mark.parametrize(
    ("members", "at"),
    [
        ({}, "127.0.0.1:7"),
        ({"grpc_listen": "[::1]:0"}, "[::1]:7"),
        ({"peers_listen": "[::1]:0"}, "[::1]:7"),
        ({"grpc_listen": "host.example.com:0"}, "host.example.com:7"),
        ({"grpc_listen": "0.0.0.0:0"}, ""),
        ({"grpc_listen": "[::]:0"}, ""),
        ({"grpc_listen": "0.0.0.0:0", "peer_address": "10.0.0.1:50051"}, "10.0.0.1:50051"),
    ],
)
def test_other_replicas_are_told_no_address_under_which_they_would_reach_themselves(
    members: dict[str, Any], at: str
) -> None:
    """Every address of a machine is, to another machine, every address of its own."""
    assert ServerSettings(HERE, insecure=True, **members).reached_at(7) == at
