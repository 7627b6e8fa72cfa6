"""The command line as a program: help, imports, version, and options made from records.

The modules `app`, `options`, `exits`, `commands.serve`, `commands.db` and `commands.simulate`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import footlights
from footlights.agent.config import AgentConfig
from footlights.cli import options
from footlights.control.settings import ServerSettings
from footlights.errors import InvalidArgument
from tests.cli.conftest import Run

HEAVY = ("grpc", "sqlalchemy", "sqlmodel", "uvicorn", "starlette", "google.protobuf", "pxr", "panda3d")


@pytest.mark.parametrize("arguments", [["--help"], ["sessions", "--help"], ["server", "--help"], ["version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """Help and completion stay quick: no gRPC, no store, no web server."""
    script = (
        "import sys\nfrom footlights.cli.app import app\n"
        f"try: app({arguments!r})\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_help_documents_the_exit_codes(run: Run) -> None:
    """Scripts find them where they look."""
    shown = " ".join(run("--help").stdout.split())

    for text in ("0 ok", "3 not found", "6 the session failed", "124 timeout"):
        assert text in shown
    for name in ("up", "server", "agent", "gateway", "apps", "sessions", "nodes", "profiles", "tokens", "version"):
        assert f" {name} " in shown


def test_the_version_is_the_packages(run: Run) -> None:
    """As command and as option."""
    expected = f"footlights {footlights.__version__}\n"

    assert [run("version").stdout, run("--version").stdout] == [expected, expected]


@pytest.mark.parametrize(("command", "record"), [("server", ServerSettings), ("agent", AgentConfig)])
def test_every_setting_is_an_option_with_help(run: Run, command: str, record: type) -> None:
    """A field added to a record is an option, explained, without a second list to keep."""
    shown = run(command, "--help").stdout.partition("Options:")[2].splitlines()

    for field in fields(record):
        (line,) = [line for line in shown if line.strip().startswith(f"{options.flag(field.name)} ")]
        explained = line.split("[env var:")[0].split(maxsplit=1)[1]
        assert len(explained.split()) >= 2, line


@dataclass(frozen=True)
class Record:
    """All the types that settings have."""

    directory: Path
    """Where it lies."""
    text: str = "t"
    """A text."""
    flag: bool = False
    """A flag."""
    many: tuple[str, ...] = ("one",)
    """Several."""
    file: Path | None = None
    """A file."""
    count: int | None = None
    """A number."""
    wait_s: float = 90.0
    """A duration."""

    def __post_init__(self) -> None:
        if self.count == 13:
            raise InvalidArgument("count", "13 will not do.")
        if self.wait_s == 13:
            raise InvalidArgument("wait_s", "13 will not do.")


def filled(arguments: list[str], **environ: str) -> Record | InvalidArgument:
    found: list[Record | InvalidArgument] = []

    def run(**given: object) -> None:
        try:
            found.append(options.fill(Record, given))
        except InvalidArgument as problem:
            found.append(problem)

    app = typer.Typer()
    options.register(app, "run", run, options.parameters(Record, {"directory": Path("d")}))
    done = CliRunner(env=environ).invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return found[0]


def test_options_not_given_leave_the_records_defaults() -> None:
    """Also for repeated ones, which typer makes empty lists."""
    assert filled([]) == Record(Path("d"))


def test_options_fill_a_record() -> None:
    """Every type arrives as itself, by option or by variable."""
    given = ["--directory", "x", "--text", "u", "--flag", "--many", "a", "--many", "b", "--file", "f", "--count", "3"]

    assert filled([*given, "--wait", "2m"]) == Record(Path("x"), "u", True, ("a", "b"), Path("f"), 3, 120.0)
    assert filled([], FOOTLIGHTS_COUNT="4", FOOTLIGHTS_WAIT="1h") == Record(Path("d"), count=4, wait_s=3600.0)


@pytest.mark.parametrize(("arguments", "option"), [(["--count", "13"], "--count"), (["--wait", "13s"], "--wait")])
def test_a_refused_setting_is_named_as_its_option(arguments: list[str], option: str) -> None:
    """Errors of the record name fields; users are told the options."""
    problem = filled(arguments)

    assert isinstance(problem, InvalidArgument)
    assert problem.message == f"{option}: 13 will not do."


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["server", "--grpc-listen", "nonsense"], "--grpc-listen"),
        (["agent", "--token", "t", "--server", "10.0.0.1"], "--server"),
        (["agent", "--enroll", "nonsense", "--server", "127.0.0.1:1", "--data-dir", "/tmp/none"], "--enroll"),
        (["agent", "--token", "t", "--labels", "novalue"], "--labels"),
        (["agent", "--token", "", "--server", "127.0.0.1:1"], "--token"),
        (["agent", "--token-file", "/nonexistent", "--server", "127.0.0.1:1"], "--token-file"),
    ],
)
def test_a_process_that_cannot_start_so_is_2(run: Run, arguments: list[str], option: str) -> None:
    """The line names the option, and nothing is begun."""
    done = run(*arguments, FOOTLIGHTS_SERVER="127.0.0.1:1") if arguments[0] == "server" else run(*arguments)

    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {option}: ")


def test_the_gateways_own_arguments_are_passed_on() -> None:
    """Its help is its own."""
    done = subprocess.run(
        [sys.executable, "-m", "footlights.cli", "gateway", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )

    assert "--descriptor-set" in done.stdout


def test_a_reader_that_stops_early_is_no_traceback(run: Run) -> None:
    """`footlights … | head` ends quietly."""
    script = "from footlights.cli.exits import exiting\nwith exiting():\n  raise BrokenPipeError"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert "BrokenPipe" not in done.stderr.partition("typer")[0]


def test_a_token_does_not_leave_the_machine_unencrypted(run: Run) -> None:
    """TLS is used to a server elsewhere, whatever is said; to one that has none, nothing is sent."""
    with socket.create_server(("0.0.0.0", 0)) as other:
        other.settimeout(20)
        first: list[bytes] = []

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                first.append(connection.recv(1))

        thread = threading.Thread(target=answer)
        thread.start()
        refused = run("sessions", "list", "--server", f"0.0.0.0:{other.getsockname()[1]}")
        thread.join()

    assert refused.exit_code == 5
    # A TLS handshake, not the preface of HTTP/2.
    assert first == [b"\x16"]
