"""``footlights simulate``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from footlights.cli.calls import Cli, command
from footlights.cli.durations import duration, show_duration
from footlights.cli.exits import ERROR, Failed
from footlights.cli.output import Output, details
from footlights.errors import InvalidArgument

if TYPE_CHECKING:
    from footlights.simulate.report import Report

_PLAIN_EVERY_S: Final = 5.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "simulate")(_simulate)


async def _simulate(
    cli: Cli,
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", help="How many nodes.")] = 100,
    gpus: Annotated[int, typer.Option("--gpus", metavar="N", help="How many GPUs each has.")] = 8,
    slots: Annotated[int, typer.Option("--slots-per-gpu", metavar="N", help="How many slots each GPU has.")] = 1,
    profile: Annotated[
        str, typer.Option("--profile", metavar="NAME|FILE", help="steady, kit, rough, or a YAML or TOML file.")
    ] = "steady",
    sessions_per_s: Annotated[
        float,
        typer.Option("--sessions-per-s", metavar="N", help="Sessions asked for a second, in the mean; 0: none."),
    ] = 0.0,
    lasting: Annotated[
        float | None,
        typer.Option("--duration", parser=duration, metavar="DURATION", help="For how long. [default: until Ctrl-C]"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="What all is drawn from.")] = 1,
    mishaps: Annotated[
        float, typer.Option("--mishap-rate", metavar="X", help="Nodes fail X times as often as the profile says.")
    ] = 1.0,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", help="How many processes hold the nodes; 0: one for 500 nodes.")
    ] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave nodes, tokens and sessions at the end.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write the figures there, as JSON.")
    ] = None,
) -> None:
    """Simulate a fleet of nodes, and their users, against a control plane.

    The links are real, the devices and applications are not: start times, failures and viewers are drawn from a seeded
    profile. Needs an operator's token. --server may name several servers, with commas. Ends with a report; the exit
    code is 1 where an acknowledged session was lost or a slot given away twice.
    """
    from footlights.simulate import profile as profiles
    from footlights.simulate.main import simulate
    from footlights.simulate.settings import Simulation

    simulation = Simulation(
        profile=profiles.load(profile),
        servers=tuple(server.strip() for server in cli.server.split(",")),
        nodes=nodes,
        gpus=gpus,
        slots_per_gpu=slots,
        processes=processes,
        sessions_per_s=sessions_per_s,
        duration_s=float("inf") if lasting is None else lasting,
        seed=seed,
        keep=keep,
        mishap_rate=mishaps,
        tls=cli.tls,
        ca_file=str(cli.ca_file or ""),
        insecure=cli.insecure,
    )
    if report is not None and not report.absolute().parent.is_dir():
        raise InvalidArgument("--report", f"{report}: there is no such directory.")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(replace(cli, server=each).client()) for each in simulation.servers]
        with _Screen() as screen:
            found = await simulate(simulation, clients, _signalled(), screen)
    if report is not None:
        report.write_text(json.dumps(found.plain(), indent=2) + "\n", encoding="utf-8")
    if cli.output is Output.TABLE:
        typer.echo("\n".join(details(found.lines())))
        typer.echo(found.verdict)
    else:
        typer.echo(json.dumps(found.plain(), indent=2))
    if not found.sound:
        raise Failed(found.verdict, ERROR)


def _signalled() -> asyncio.Event:
    """Set at the first signal; a second one does what it does to any program."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def heard() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, heard)
    return stop


class _Screen:
    """Shows the figures on stderr: a live table on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._live: Any = None
        self._said = ""
        self._said_at = -_PLAIN_EVERY_S

    def __enter__(self) -> _Screen:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, doing: str, report: Report) -> None:
        if self._live is not None:
            self._live.update(_grid(doing, report), refresh=True)
            return
        now = asyncio.get_running_loop().time()
        if doing == self._said and now - self._said_at < _PLAIN_EVERY_S:
            return
        self._said, self._said_at = doing, now
        states = " ".join(f"{many} {name.lower()}" for name, many in sorted(report.states.items()))
        typer.echo(
            f"{show_duration(report.elapsed_s)}  {doing}: {report.linked}/{report.simulation.nodes} linked, "
            f"{report.creates_per_s:.1f} creates/s, {states or 'no sessions'}",
            err=True,
        )


def _grid(doing: str, report: Report) -> Any:
    from rich.table import Table

    title = f"{report.simulation.profile.name}: {doing}, {show_duration(report.elapsed_s)}"
    grid = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    for what, value in report.lines():
        grid.add_row(f"[dim]{what}[/dim]", value)
    return grid
