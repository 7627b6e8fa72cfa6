"""Until when the certificate is good that a server serves with."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from footlights import supervision
from footlights.control.observability import certificates
from footlights.control.observability.certificates import expiry, name
from footlights.control.observability.metrics import Metrics
from footlights.errors import InvalidArgument
from footlights.supervision import Supervisor
from tests.client.test_tls import identity
from tests.control.harness import control


def test_a_chain_ends_with_its_first(tmp_path: Path) -> None:
    """Of several certificates in a file the one that ends first counts."""
    first, second = identity(), identity()
    path = tmp_path / "chain.pem"
    path.write_bytes(second.certificate + first.certificate)

    ends = [x509.load_pem_x509_certificate(one.certificate).not_valid_after_utc for one in (first, second)]

    assert expiry(path) == min(ends)


@pytest.mark.parametrize(("text", "says"), [(None, "cannot be read"), ("", "holds no certificate")])
def test_what_is_no_certificate_is_said(tmp_path: Path, text: str | None, says: str) -> None:
    """By the setting's name and the file."""
    if text is not None:
        (tmp_path / "chain.pem").write_text(text)

    with pytest.raises(InvalidArgument, match=says) as problem:
        expiry(tmp_path / "chain.pem")

    assert problem.value.field == "tls_cert"


async def test_a_server_says_it(tmp_path: Path, migrated: Path) -> None:
    """Among its figures is when its certificate ends; 0 without one."""
    one = identity()
    (tmp_path / "tls.crt").write_bytes(one.certificate)
    ends = x509.load_pem_x509_certificate(one.certificate).not_valid_after_utc.timestamp()
    shown: list[float] = []
    served: dict[str, Any] = {"tls_cert": tmp_path / "tls.crt", "tls_key": tmp_path / "tls.key"}
    for settings in (served, {}):
        async with control(tmp_path / str(len(shown)), migrated, **settings) as plane:
            text = (await plane.rest("GET", "/metrics")).text
        (line,) = [line for line in text.splitlines() if line.startswith("footlights_certificate_expiry")]
        shown.append(float(line.split()[1]))

    assert shown == [ends, 0]


async def test_the_metric_follows_a_renewed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a restart; a file that is no certificate for a moment is read again."""
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.001)
    failures, shown = asyncio.Queue[str](), asyncio.Queue[datetime]()

    class Shown(Metrics):
        def certified(self, until: datetime) -> None:
            shown.put_nowait(until)

    (tmp_path / "tls.crt").write_text("half a certif")
    supervisor = Supervisor(failures.put_nowait)
    watching = asyncio.create_task(
        certificates.watch(tmp_path / "tls.crt", Shown(), supervisor=supervisor, period_s=0.001)
    )
    try:
        async with asyncio.timeout(10):
            failed = await failures.get()
            (tmp_path / "tls.crt").write_bytes(identity().certificate)
            until = await shown.get()
    finally:
        watching.cancel()

    assert failed == "certificate"
    assert until == expiry(tmp_path / "tls.crt")


def test_a_certificate_may_have_no_name(tmp_path: Path) -> None:
    """One that is for addresses alone, or for nothing, has no name; dialling by address is then as it names."""
    (tmp_path / "tls.crt").write_bytes(identity().certificate)
    assert name(tmp_path / "tls.crt") == "localhost"
    (tmp_path / "tls.crt").write_bytes(identity("").certificate)
    assert name(tmp_path / "tls.crt") == ""
