"""The commands of ``footlights sessions``."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from footlights.cli import show
from footlights.cli.calls import Cli, command, group, pairs
from footlights.cli.durations import duration
from footlights.cli.output import Output, details, emit, emit_line, table
from footlights.cli.progress import SessionProgress
from footlights.errors import Error, InvalidArgument

if TYPE_CHECKING:
    from footlights.client import Client
    from footlights.v1 import session_pb2

app = group("Create, watch and end sessions.")

SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]
Application = Annotated[str, typer.Argument(metavar="APPLICATION", help="The application's id.")]
Version = Annotated[str, typer.Option("--version", help="A release or a version of the application.")]
Profile = Annotated[str, typer.Option("--profile", help="A profile: a bundle of needs and limits.")]
Priority = Annotated[
    int, typer.Option("--priority", help="Higher is placed first. Above 0 only for services and operators.")
]
_PAGE: Final = 1000


@command(app, "create")
async def create(
    cli: Cli,
    application: Application,
    *,
    version: Version = "default",
    stage: Annotated[str, typer.Option("--stage", metavar="URI", help="The USD stage to open.")] = "",
    arg: Annotated[
        list[str] | None,
        typer.Option(
            "--arg",
            metavar="K=V",
            help="An argument; repeatable. Parsed as JSON if possible, else text: n=5, s='\"5\"'.",
        ),
    ] = None,
    profile: Profile = "",
    label: Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="A label; repeatable.")] = None,
    priority: Priority = 0,
    max_duration: Annotated[
        float | None, typer.Option("--max-duration", parser=duration, metavar="DURATION", help="Maximum duration.")
    ] = None,
    idle_timeout: Annotated[
        float | None,
        typer.Option(
            "--idle-timeout", parser=duration, metavar="DURATION", help="Maximum time without viewers or input."
        ),
    ] = None,
    request_id: Annotated[
        str, typer.Option("--request-id", help="Idempotency key: the same id returns the same session.")
    ] = "",
    user: Annotated[
        str, typer.Option("--user", help="The owner of the session. Only for services and operators.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until viewers can connect.")] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", parser=duration, metavar="DURATION", show_default="30m", help="Time limit of --wait."
        ),
    ] = 1800.0,
) -> None:
    """Create a session: find a free device and start the application on it."""
    from footlights.protocol import times
    from footlights.v1 import session_pb2

    request = session_pb2.CreateSessionRequest(
        application=application,
        application_version=version,
        profile=profile,
        request_id=request_id,
        priority=priority,
        labels=pairs("label", label or []),
        username=user,
    )
    arguments = _arguments(arg or [], stage)
    if arguments:
        request.application_arguments.update(arguments)
    if max_duration is not None:
        request.max_duration.CopyFrom(times.duration(max_duration))
    if idle_timeout is not None:
        request.idle_timeout.CopyFrom(times.duration(idle_timeout))
    async with cli.client() as client:
        session = await client.sessions.create(request)
        if wait:
            try:
                with SessionProgress() as progress:
                    session = await client.sessions.wait_ready(
                        session.session_id, timeout_s=timeout, on_change=progress
                    )
            except Error:
                if cli.output is not Output.TABLE:
                    # A program needs the session's id and how it ended; a person reads that on stderr.
                    _emit_one(cli, await client.sessions.get(session.session_id))
                raise
            except asyncio.CancelledError:
                typer.echo(
                    f"The session continues. To end it: footlights sessions terminate {session.session_id}", err=True
                )
                raise
    _emit_one(cli, session)


@command(app, "list")
async def list_(
    cli: Cli,
    *,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only sessions in this state; repeatable, or READY,ACTIVE.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Include sessions that have ended.")] = False,
    user: Annotated[str, typer.Option("--user", help="Only sessions of this user.")] = "",
    application: Annotated[str, typer.Option("--application", help="Only sessions of this application.")] = "",
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="Only sessions with this label; repeatable."),
    ] = None,
    search: Annotated[
        str, typer.Option("--search", help="Only sessions with this text in their application, user, labels or id.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Maximum number of sessions.")] = 1000,
) -> None:
    """List sessions: those that have not ended, newest last."""
    from footlights.v1 import session_pb2

    request = session_pb2.ListSessionsRequest(
        username=user,
        application=application,
        state=_states(state or [], all_),
        label=labels or [],
        search=search,
    )
    async with cli.client() as client:
        answer = await _pages(client, request, limit)
    rows = [show.session_row(session, time.time()) for session in answer.items]
    lines = table(show.SESSION_HEADERS, rows, empty="No sessions.") if cli.output is Output.TABLE else []
    emit(cli.output, answer, [session.session_id for session in answer.items], lines)


@command(app, "show")
async def show_(cli: Cli, session_id: SessionId) -> None:
    """Show one session."""
    async with cli.client() as client:
        _emit_one(cli, await client.sessions.get(session_id))


@command(app, "watch")
async def watch(
    cli: Cli,
    session_id: Annotated[
        str, typer.Argument(metavar="[SESSION]", help="A session's id; all visible sessions if omitted.")
    ] = "",
) -> None:
    """Print every change of one session until it has ended, or of all until interrupted."""
    async with cli.client() as client:
        async for session in client.sessions.watch(session_id) if session_id else client.sessions.watch_all():
            emit_line(cli.output, session, session.session_id, show.session_line(session))


@command(app, "terminate")
async def terminate(
    cli: Cli,
    session_ids: Annotated[list[str], typer.Argument(metavar="SESSION...", help="The sessions' ids.")],
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until the devices are free.")] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", parser=duration, metavar="DURATION", show_default="2m", help="Time limit of --wait."),
    ] = 120.0,
) -> None:
    """End sessions, in any state."""
    async with cli.client() as client:
        for session_id in session_ids:
            answer = await client.sessions.terminate(session_id)
            if wait:
                with SessionProgress() as progress:
                    await client.sessions.wait_ended(session_id, timeout_s=timeout, on_change=progress)
            emit(cli.output, answer, [session_id], [f"{session_id} {'has ended' if wait else 'is ending'}"])


@command(app, "extend")
async def extend(
    cli: Cli,
    session_id: SessionId,
    by: Annotated[
        float, typer.Option("--by", parser=duration, metavar="DURATION", help="Additional time, such as 30m.")
    ],
) -> None:
    """Extend the maximum duration of a session."""
    async with cli.client() as client:
        _emit_one(cli, await client.sessions.extend(session_id, by))


@command(app, "log")
async def log(
    cli: Cli,
    session_id: SessionId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines until interrupted.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", min=0, max=10000, help="Number of lines from the end.")] = None,
) -> None:
    """Print the application's output."""
    async with cli.client() as client:
        if not follow:
            answer = await client.sessions.log(session_id, tail_lines=tail)
            if answer.truncated:
                typer.echo("(earlier lines are omitted)", err=True)
            emit(cli.output, answer, answer.lines, answer.lines)
            return
        async for part in client.sessions.tail_log(session_id, tail_lines=tail):
            text = "\n".join(part.lines)
            emit_line(cli.output, part, text, text)


@command(app, "connect")
async def connect(
    cli: Cli,
    session_id: SessionId,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until viewers can connect.")] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", parser=duration, metavar="DURATION", show_default="30m", help="Time limit of --wait."
        ),
    ] = 1800.0,
) -> None:
    """Get a grant for one viewer of a session (short-lived), and the URLs to use it with."""
    async with cli.client() as client:
        answer = await client.sessions.connect(session_id, wait_s=timeout if wait else None)
    lines = details(
        [
            ("Grant", answer.token),
            ("Expires", show.moment(answer.expire_time)),
            ("WHEP", answer.whep_url),
            ("Signalling", answer.signaling_url),
            *(("ICE", " ".join(server.urls)) for server in answer.ice_servers),
        ]
    )
    emit(cli.output, answer, [answer.token], lines)


@command(app, "explain")
async def explain(
    cli: Cli, application: Application, version: Version = "default", profile: Profile = "", priority: Priority = 0
) -> None:
    """Explain where such a session would be placed now, and why. Changes nothing."""
    from footlights.v1 import session_pb2

    request = session_pb2.ExplainPlacementRequest(
        application=application, application_version=version, profile=profile, priority=priority
    )
    async with cli.client() as client:
        answer = await client.sessions.explain(request)
    emit(cli.output, answer, [answer.node] if answer.fits else [], show.verdicts(answer))


def _emit_one(cli: Cli, session: session_pb2.Session) -> None:
    emit(cli.output, session, [session.session_id], show.session_details(session))


def _arguments(texts: list[str], stage: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {key: _value(text) for key, text in pairs("arg", texts).items()}
    if stage:
        if arguments.get("usd_stage_uri", stage) != stage:
            raise InvalidArgument("--stage", "differs from --arg usd_stage_uri; use only one of them.")
        arguments["usd_stage_uri"] = stage
    return arguments


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _states(texts: list[str], all_: bool) -> list[session_pb2.Session.State.ValueType]:
    from footlights.v1 import session_pb2

    known = dict(session_pb2.Session.State.items())
    del known["STATE_UNSPECIFIED"]
    wanted = [name.strip().upper() for text in texts for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise InvalidArgument("--state", f"unknown state {name!r}; choose from {', '.join(known)}.")
    return [known[name] for name in (known if all_ and not wanted else wanted)]


async def _pages(
    client: Client, request: session_pb2.ListSessionsRequest, limit: int
) -> session_pb2.ListSessionsResponse:
    """Fetch pages until there are ``limit`` items, and return them as one answer."""
    request.limit = min(limit, _PAGE)
    answer = await client.sessions.list(request)
    while answer.next_page_token and len(answer.items) < limit:
        request.limit = min(limit - len(answer.items), _PAGE)
        request.page_token = answer.next_page_token
        page = await client.sessions.list(request)
        answer.items.extend(page.items)
        answer.next_page_token = page.next_page_token
        if not page.items:
            break
    if answer.next_page_token:
        typer.echo(
            f"More than {limit} sessions match. Narrow the list with --search, --label or --state, or raise --limit.",
            err=True,
        )
    return answer
