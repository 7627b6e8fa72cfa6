"""``footlights simulate``."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from footlights.cli.calls import Cli, command
from footlights.cli.durations import duration, show_duration
from footlights.cli.exits import ERROR, Failed
from footlights.cli.live import LiveDisplay
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
    *,
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", help="Number of nodes.")] = 100,
    gpus: Annotated[int, typer.Option("--gpus", metavar="N", help="GPUs per node.")] = 8,
    slots: Annotated[int, typer.Option("--slots-per-gpu", metavar="N", help="Slots per GPU.")] = 1,
    profile: Annotated[
        str, typer.Option("--profile", metavar="NAME|FILE", help="steady, kit, rough, or a YAML or TOML file.")
    ] = "steady",
    sessions_per_s: Annotated[
        float,
        typer.Option("--sessions-per-s", metavar="N", help="Sessions created per second, on average; 0: none."),
    ] = 0.0,
    lasting: Annotated[
        float | None,
        typer.Option(
            "--duration", parser=duration, metavar="DURATION", help="Length of the simulation. [default: until Ctrl-C]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of all random choices.")] = 1,
    mishaps: Annotated[
        float, typer.Option("--mishap-rate", metavar="X", help="Factor on the failure rates of the profile.")
    ] = 1.0,
    processes: Annotated[
        int,
        typer.Option("--processes", metavar="N", help="Number of processes that run the nodes; 0: one per 500 nodes."),
    ] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep nodes, tokens and sessions at the end.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write the figures to this file, as JSON.")
    ] = None,
) -> None:
    """Simulate a fleet of nodes, and their users, against a control plane.

    The links are real; devices and applications are simulated: start times, failures and viewers are random, from a
    profile and a seed. Requires an operator's token. --server may list several servers, separated by commas. Ends with
    a report; the exit code is 1 if an acknowledged session was lost or a slot was leased twice.
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
        raise InvalidArgument("--report", f"the directory of {report} does not exist.")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(replace(cli, server=each).client()) for each in simulation.servers]
        with _SimulationDisplay() as display:
            found = await simulate(simulation, clients, _stop_signal(), display)
    if report is not None:
        report.write_text(json.dumps(found.plain(), indent=2) + "\n", encoding="utf-8")
    if cli.output is Output.TABLE:
        typer.echo("\n".join(details(found.lines())))
        typer.echo(found.verdict)
    else:
        typer.echo(json.dumps(found.plain(), indent=2))
    if not found.sound:
        raise Failed(found.verdict, ERROR)


def _stop_signal() -> asyncio.Event:
    """Return an event that the first signal sets; a second one ends the program as usual."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return stop


class _SimulationDisplay(LiveDisplay):
    """Shows the figures on stderr: a live table on a terminal, a line every few seconds elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self._printed = ""
        self._printed_at = -_PLAIN_EVERY_S

    def __call__(self, doing: str, report: Report) -> None:
        if self.on_terminal:
            self.draw(_grid(doing, report))
            return
        now = asyncio.get_running_loop().time()
        if doing == self._printed and now - self._printed_at < _PLAIN_EVERY_S:
            return
        self._printed, self._printed_at = doing, now
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
