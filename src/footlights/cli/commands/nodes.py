"""The commands of ``footlights nodes``."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from footlights.cli import show
from footlights.cli.calls import Cli, DryRun, Yes, command, confirm, group, whole
from footlights.cli.durations import duration, show_duration
from footlights.cli.exits import TIMEOUT, Failed
from footlights.cli.output import Output, emit
from footlights.errors import NotFound
from footlights.protocol.enums import field_name

if TYPE_CHECKING:
    from footlights.client import Client
    from footlights.v1 import node_pb2

app = group("List nodes and their devices, and take nodes out of service and back.")

Name = Annotated[str, typer.Argument(metavar="NODE", help="The node's name.")]
Message = Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="Why, for other operators.")]
_POLL_S = 1.0


@command(app, "list")
async def list_(
    cli: Cli,
    filter_: Annotated[
        str,
        typer.Option(
            "--filter",
            metavar="EXPRESSION",
            help="Only nodes that match, such as 'facts.labels.zone = \"a\"' (docs/filters.md).",
        ),
    ] = "",
) -> None:
    """List nodes."""
    from footlights.v1 import node_pb2

    async with cli.client() as client:
        answer = await whole(client.nodes.iterate(node_pb2.ListNodesRequest(filter=filter_)))
    if answer.HasField("brake"):
        typer.echo(f"Reaping pauses ({answer.brake.reason}): {answer.brake.message}", err=True)
    emit(cli.output, answer, [node.node for node in answer.items], show.node_table(answer.items, time.time()))


@command(app, "show")
async def show_(cli: Cli, node: Name) -> None:
    """Show one node, with its devices."""
    async with cli.client() as client:
        _emit_one(cli, await client.nodes.get(node))


@command(app, "cordon")
async def cordon(cli: Cli, node: Name, message: Message = "", dry_run: DryRun = False) -> None:
    """Stop placing sessions on a node; its running sessions continue."""
    async with cli.client() as client:
        _emit_state(cli, await client.nodes.cordon(node, message, validate_only=dry_run), dry_run=dry_run)


@command(app, "uncordon")
async def uncordon(cli: Cli, node: Name, dry_run: DryRun = False) -> None:
    """Place sessions on a node again, also on one that is draining."""
    async with cli.client() as client:
        _emit_state(cli, await client.nodes.uncordon(node, validate_only=dry_run), dry_run=dry_run)


@command(app, "accept")
async def accept(cli: Cli, node: Name, dry_run: DryRun = False) -> None:
    """Let sessions be placed on a node that is new, or whose hardware has changed."""
    async with cli.client() as client:
        _emit_state(cli, await client.nodes.accept(node, validate_only=dry_run), dry_run=dry_run)


@command(app, "drain")
async def drain(
    cli: Cli,
    node: Name,
    *,
    deadline: Annotated[
        float | None,
        typer.Option(
            "--deadline",
            parser=duration,
            metavar="DURATION",
            help="End the remaining sessions after this time; 0: at once.",
        ),
    ] = None,
    message: Message = "",
    dry_run: DryRun = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until the node has no sessions.")] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", parser=duration, metavar="DURATION", show_default="1h", help="Time limit of --wait."),
    ] = 3600.0,
) -> None:
    """Empty a node: no new sessions; running ones continue until they end or the deadline."""
    async with cli.client() as client:
        began = time.monotonic()
        answer = await client.nodes.drain(node, deadline, message, validate_only=dry_run)
        end = began + timeout
        left = -1
        while wait and not dry_run and answer.session_count:
            if answer.session_count != left:
                left = answer.session_count
                typer.echo(f"{node}: {_sessions(left)} left{_ends(deadline, began)}", err=True)
            if time.monotonic() > end:
                raise Failed(
                    f"{node} still has {_sessions(left)} after {show_duration(timeout)}. It keeps draining; "
                    "use --deadline to end them.",
                    TIMEOUT,
                )
            await asyncio.sleep(_POLL_S)
            answer = await client.nodes.get(node)
    _emit_state(cli, answer, dry_run=dry_run)


@command(app, "invite")
async def invite(
    cli: Cli,
    node: Name,
    *,
    ttl: Annotated[
        float,
        typer.Option("--ttl", parser=duration, metavar="DURATION", show_default="15m", help="How long the code works."),
    ] = 900.0,
    unless_linked: Annotated[
        bool, typer.Option("--unless-linked", help="Do nothing, and print no code, if the node's agent has a link.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Let a machine in as a node: prints a code that its agent trades for a certificate, once.

    On the machine: footlights agent --server HOST:PORT --node NODE --enroll CODE
    """
    async with cli.client() as client:
        if unless_linked and await _is_linked(client, node):
            typer.echo(f"Node {node} has a link, and is not invited.", err=True)
            return
        answer = await client.enrollment.invite(node, ttl, validate_only=dry_run)
    if cli.output is Output.TABLE and not dry_run:
        typer.echo(
            f"Node {node} is invited until {show.moment(answer.expire_time)}. On its machine, once:\n"
            f"    footlights agent --server {cli.server} --node {node} --enroll CODE",
            err=True,
        )
    # The code alone on stdout: CODE=$(footlights nodes invite …).
    line = f"{node} can be invited" if dry_run else answer.code
    emit(cli.output, answer, [answer.invitation_id], [line], dry_run=dry_run)


@command(app, "revoke")
async def revoke(
    cli: Cli,
    node: Name,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Shut a machine out: its link ends at once, and its certificates and tokens are refused.

    Its sessions show UNREACHABLE; they end when the node is forgotten, and on the machine with its agent's time limit.
    """
    confirm(f"Revoke the identity of {node}?", yes=yes or dry_run)
    async with cli.client() as client:
        answer = await client.enrollment.revoke(node, validate_only=dry_run)
    emit(cli.output, answer, [node], [f"{node} is revoked"], dry_run=dry_run)


@command(app, "forget")
async def forget(
    cli: Cli,
    node: Name,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Remove a node that will not return: its sessions end with reason NODE_LOST."""
    confirm(f"Forget {node} and end its sessions?", yes=yes or dry_run)
    async with cli.client() as client:
        answer = await client.nodes.forget(node, validate_only=dry_run)
    ended = answer.ended_session_count
    line = f"{node} is forgotten; {ended} session{'s' if ended != 1 else ''} ended"
    emit(cli.output, answer, [node], [line], dry_run=dry_run)


async def _is_linked(client: Client, node: str) -> bool:
    try:
        found = await client.nodes.get(node)
    except NotFound:
        return False
    return found.condition == found.CONNECTED


def _ends(deadline: float | None, began: float) -> str:
    """Describe when the drain ends the remaining sessions, by this machine's clock."""
    if not deadline:
        return ""
    left = began + deadline - time.monotonic()
    return f", ended in {show_duration(round(left))}" if left >= 1 else ", ending now"


def _sessions(count: int) -> str:
    return f"{count} session{'s' if count != 1 else ''}"


def _emit_one(cli: Cli, node: node_pb2.Node) -> None:
    emit(cli.output, node, [node.node], show.node_details(node))


def _emit_state(cli: Cli, node: node_pb2.Node, *, dry_run: bool = False) -> None:
    left = f", {_sessions(node.session_count)}" if node.session_count else ""
    why = f": {node.acceptance.message}" if node.HasField("acceptance") else ""
    line = f"{node.node} is {field_name(node, 'state')}{left}{why}"
    emit(cli.output, node, [node.node], [line], dry_run=dry_run)
