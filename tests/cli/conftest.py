"""The command line against a stand-in control plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from footlights.cli.app import app
from footlights.errors import InvalidArgument
from tests.client.standin import Standin

Run = Callable[..., Result]


@pytest.fixture
def standin() -> Iterator[Standin]:
    standin = Standin()
    standin.on("GetRelease", InvalidArgument("application", "is missing."))  # of this release: it has the RPC
    yield from standin.serve()


@pytest.fixture
def run(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``footlights ARGUMENTS`` against the stand-in; nothing of the caller's environment gets in."""
    for name in ("TOKEN", "TOKEN_FILE", "SERVER", "TLS", "CA_FILE", "INSECURE", "DEBUG"):
        monkeypatch.delenv(f"FOOTLIGHTS_{name}", raising=False)
    runner = CliRunner(env={"FOOTLIGHTS_SERVER": standin.address, "FOOTLIGHTS_TOKEN": "fl_t", "COLUMNS": "80"})

    def run(*arguments: str, stdin: str | None = None, **environ: str) -> Result:
        return runner.invoke(app, arguments, input=stdin, env=environ)

    return run
