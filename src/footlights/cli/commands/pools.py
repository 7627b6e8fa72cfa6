"""The commands of ``footlights pools``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from footlights.cli import show
from footlights.cli.calls import Cli, DryRun, Yes, command, confirm, group, whole
from footlights.cli.durations import duration, show_duration
from footlights.cli.output import details, emit, table

if TYPE_CHECKING:
    from footlights.v1 import pool_pb2

app = group("Manage pools: instances that are started before there are sessions for them.")

Name = Annotated[str, typer.Argument(metavar="POOL", help="The pool's name.")]


@command(app, "list")
async def list_(cli: Cli) -> None:
    """List pools, with how many instances are ready, starting and wanted."""
    async with cli.client() as client:
        answer = await whole(client.pools.iterate())
    rows = [
        (
            item.pool,
            f"{item.application}@{item.resolved_version or item.application_version or 'default'}",
            item.profile or "-",
            _size(item),
            f"{item.ready_count}+{item.starting_count}/{item.wanted_count}",
            item.status_message or "-",
        )
        for item in answer.items
    ]
    heads = ("POOL", "APPLICATION", "PROFILE", "SIZE", "READY+STARTING/WANTED", "STATUS")
    emit(cli.output, answer, [item.pool for item in answer.items], table(heads, rows, empty="No pools."))


@command(app, "show")
async def show_(cli: Cli, pool: Name) -> None:
    """Show one pool, with its instances."""
    from footlights.protocol.enums import field_name

    async with cli.client() as client:
        answer = await client.pools.get(pool)
    lines = details(
        [
            ("pool", answer.pool),
            ("application", f"{answer.application}@{answer.application_version or 'default'}"),
            ("version", answer.resolved_version or "-"),
            ("profile", answer.profile or "-"),
            ("size", _size(answer)),
            ("wanted", str(answer.wanted_count)),
            ("ready", str(answer.ready_count)),
            ("starting", str(answer.starting_count)),
            ("status", answer.status_message or "-"),
        ]
    )
    rows = [
        (each.launch_id, field_name(each, "state"), each.node, each.device, show.age(each.created_time, time.time()))
        for each in answer.instances
    ]
    lines += ["", *table(("LAUNCH", "STATE", "NODE", "DEVICE", "SINCE"), rows, empty="No instances.")]
    emit(cli.output, answer, [answer.pool], lines)


@command(app, "set")
async def set_(
    cli: Cli,
    pool: Name,
    *,
    application: Annotated[str, typer.Option("--application", "-a", help="The application's id.")],
    version: Annotated[str, typer.Option("--version", help="A release or a version of it.")] = "",
    profile: Annotated[str, typer.Option("--profile", help="The profile of the sessions that take an instance.")] = "",
    size: Annotated[int | None, typer.Option("--size", help="How many instances there are to be; 0 pauses it.")] = None,
    wait_goal: Annotated[
        float | None,
        typer.Option(
            "--wait-goal",
            parser=duration,
            metavar="DURATION",
            help="How long a session may wait: as many instances as that needs, by what was measured.",
        ),
    ] = None,
    min_size: Annotated[int | None, typer.Option("--min-size", help="With --wait-goal, at least so many.")] = None,
    max_size: Annotated[int | None, typer.Option("--max-size", help="With --wait-goal, at most so many.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Create or replace a pool, of a fixed size or with a wait goal."""
    from footlights.protocol import times
    from footlights.v1 import pool_pb2

    wanted = pool_pb2.Pool(
        pool=pool,
        application=application,
        application_version=version,
        profile=profile,
        size=size,
        min_size=min_size,
        max_size=max_size,
        wait_goal=None if wait_goal is None else times.duration(wait_goal),
    )
    async with cli.client() as client:
        answer = await client.pools.set(wanted, validate_only=dry_run)
    emit(cli.output, answer, [answer.pool], [f"{answer.pool} is set"], dry_run=dry_run)


@command(app, "delete")
async def delete(cli: Cli, pool: Name, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Delete a pool. Its instances end; sessions that have taken one are not changed."""
    confirm(f"Delete pool {pool}?", yes=yes or dry_run)
    async with cli.client() as client:
        answer = await client.pools.delete(pool, validate_only=dry_run)
    emit(cli.output, answer, [pool], [f"{pool} is deleted"], dry_run=dry_run)


def _size(pool: pool_pb2.Pool) -> str:
    from footlights.protocol import times

    if pool.HasField("wait_goal"):
        return f"wait {show_duration(times.seconds(pool.wait_goal))}"
    return str(pool.size)
