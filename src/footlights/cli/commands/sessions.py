"""The commands of ``footlights sessions``."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from footlights.cli import show
from footlights.cli.calls import Cli, DryRun, command, group, pairs, secret_texts, whole
from footlights.cli.durations import duration
from footlights.cli.output import Output, application_output, emit, emit_line, table
from footlights.cli.progress import SessionProgress
from footlights.errors import Error, InvalidArgument

if TYPE_CHECKING:
    from footlights.v1 import session_pb2

app = group("Create, watch and end sessions.")

SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]
Application = Annotated[str, typer.Argument(metavar="APPLICATION", help="The application's id.")]
Version = Annotated[str, typer.Option("--version", help="A release or a version of the application.")]
Profile = Annotated[str, typer.Option("--profile", help="A profile: a bundle of needs and limits.")]
Priority = Annotated[
    int, typer.Option("--priority", help="Higher is placed first. Above 0 only for services and operators.")
]
MaxDuration = Annotated[
    float | None, typer.Option("--max-duration", parser=duration, metavar="DURATION", help="Maximum duration.")
]
IdleTimeout = Annotated[
    float | None,
    typer.Option("--idle-timeout", parser=duration, metavar="DURATION", help="Maximum time without viewers or input."),
]
Filter = Annotated[
    str,
    typer.Option(
        "--filter",
        metavar="EXPRESSION",
        help="Only sessions that match, such as 'labels.team = \"b\" AND priority > 3' (docs/filters.md).",
    ),
]


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
    secret_file: Annotated[
        list[str] | None,
        typer.Option(
            "--secret-file",
            metavar="K=FILE",
            help="A secret argument, from a file, so that it is on no command line; - is stdin; repeatable.",
        ),
    ] = None,
    profile: Profile = "",
    label: Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="A label; repeatable.")] = None,
    priority: Priority = 0,
    max_duration: MaxDuration = None,
    idle_timeout: IdleTimeout = None,
    request_id: Annotated[
        str, typer.Option("--request-id", help="Idempotency key: the same id returns the same session.")
    ] = "",
    user: Annotated[
        str, typer.Option("--user", help="The owner of the session. Only for services and operators.")
    ] = "",
    dry_run: DryRun = False,
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
    arguments = _arguments(arg or [], stage) | secret_texts(secret_file or [])
    if arguments:
        request.application_arguments.update(arguments)
    if max_duration is not None:
        request.max_duration.CopyFrom(times.duration(max_duration))
    if idle_timeout is not None:
        request.idle_timeout.CopyFrom(times.duration(idle_timeout))
    async with cli.client() as client:
        session = await client.sessions.create(request, validate_only=dry_run)
        if wait and not dry_run:
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
    _emit_one(cli, session, dry_run=dry_run)


@command(app, "update")
async def update(
    cli: Cli,
    session_id: SessionId,
    *,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="K=V", help="A label to set; repeatable.")
    ] = None,
    remove_label: Annotated[
        list[str] | None, typer.Option("--remove-label", metavar="K", help="A label to remove; repeatable.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option("--priority", help="Higher is placed first; only while it is pending.")
    ] = None,
    max_duration: MaxDuration = None,
    idle_timeout: IdleTimeout = None,
    if_match: Annotated[
        str, typer.Option("--if-match", metavar="ETAG", help="Only if the session still has this etag.")
    ] = "",
    dry_run: DryRun = False,
) -> None:
    """Change a session that has not ended: its labels and limits, and while it is pending its priority."""
    from footlights.protocol import times
    from footlights.v1 import session_pb2

    session = session_pb2.Session(session_id=session_id, labels=pairs("label", label or []))
    paths = [f"labels.`{key}`" for key in sorted(session.labels)]
    for key in remove_label or []:
        if key in session.labels:
            raise InvalidArgument("--remove-label", f"{key!r} is also in --label; give one of them.")
        paths.append(f"labels.`{key}`")
    if priority is not None:
        session.priority = priority
        paths.append("priority")
    if max_duration is not None:
        session.limits.max_duration.CopyFrom(times.duration(max_duration))
        paths.append("limits.max_duration")
    if idle_timeout is not None:
        session.limits.idle_timeout.CopyFrom(times.duration(idle_timeout))
        paths.append("limits.idle_timeout")
    if not paths:
        raise InvalidArgument("--label", "missing; give this or another option that changes something.")
    async with cli.client() as client:
        answer = await client.sessions.update(session, paths, etag=if_match, validate_only=dry_run)
    _emit_one(cli, answer, dry_run=dry_run)


@command(app, "list")
async def list_(
    cli: Cli,
    *,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only sessions in this state; repeatable, or READY,ACTIVE.")
    ] = None,
    ended: Annotated[bool, typer.Option("--ended", "--all", "-a", help="Include sessions that have ended.")] = False,
    user: Annotated[str, typer.Option("--user", help="Only sessions of this user.")] = "",
    application: Annotated[str, typer.Option("--application", help="Only sessions of this application.")] = "",
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="Only sessions with this label; repeatable."),
    ] = None,
    search: Annotated[
        str, typer.Option("--search", help="Only sessions with this text in their application, user, labels or id.")
    ] = "",
    filter_: Filter = "",
    order: Annotated[
        str,
        typer.Option(
            "--order",
            metavar="MEMBER",
            help="created_time, ended_time, username or priority; 'ended_time desc' is the other direction.",
        ),
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Maximum number of sessions.")] = 1000,
) -> None:
    """List sessions: those that have not ended, newest last, unless options ask for others."""
    from footlights.v1 import session_pb2

    request = session_pb2.ListSessionsRequest(
        username=user,
        application=application,
        state=_states(state or []),
        label=labels or [],
        search=search,
        filter=filter_,
        order_by=order,
        include_ended=ended,
    )
    async with cli.client() as client:
        answer = await whole(client.sessions.iterate(request), limit)
    if answer.next_page_token:
        typer.echo(
            f"More than {limit} sessions match. Narrow the list with --filter, --search or --state, or raise --limit.",
            err=True,
        )
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
    filter_: Filter = "",
) -> None:
    """Print every change of one session until it has ended, or of all until interrupted.

    One that no longer matches the filter, or is no longer kept, is REMOVED; as JSON or YAML it has only its id.
    """
    from footlights.v1 import session_pb2

    frames = session_pb2.FollowSessionsResponse
    request = session_pb2.FollowSessionsRequest(session_id=session_id, filter=filter_)
    async with cli.client() as client:
        async for frame in client.sessions.follow(request, start_over=_started_over):
            found = frame.session
            if frame.change == frames.SET:
                emit_line(cli.output, found, found.session_id, show.session_line(found))
            elif frame.change == frames.REMOVED:
                emit_line(cli.output, found, found.session_id, f"{found.session_id}  REMOVED")


@command(app, "terminate")
async def terminate(
    cli: Cli,
    session_ids: Annotated[list[str], typer.Argument(metavar="SESSION...", help="The sessions' ids.")],
    dry_run: DryRun = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until the devices are free.")] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", parser=duration, metavar="DURATION", show_default="2m", help="Time limit of --wait."),
    ] = 120.0,
) -> None:
    """End sessions, in any state."""
    async with cli.client() as client:
        for session_id in session_ids:
            answer = await client.sessions.terminate(session_id, validate_only=dry_run)
            if wait and not dry_run:
                with SessionProgress() as progress:
                    await client.sessions.wait_ended(session_id, timeout_s=timeout, on_change=progress)
            done = "has ended" if wait else "is ending"
            emit(cli.output, answer, [session_id], [f"{session_id} {done}"], dry_run=dry_run)


@command(app, "extend")
async def extend(
    cli: Cli,
    session_id: SessionId,
    by: Annotated[
        float, typer.Option("--by", parser=duration, metavar="DURATION", help="Additional time, such as 30m.")
    ],
    dry_run: DryRun = False,
) -> None:
    """Extend the maximum duration of a session."""
    async with cli.client() as client:
        _emit_one(cli, await client.sessions.extend(session_id, by, validate_only=dry_run), dry_run=dry_run)


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
            emit(cli.output, answer, answer.lines, map(application_output, answer.lines))
            return
        async for part in client.sessions.tail_log(session_id, tail_lines=tail):
            text = "\n".join(map(application_output, part.lines))
            emit_line(cli.output, part, text, text, raw=True)


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
    """Get a grant for one viewer of a session (short-lived), and what its player needs to be told.

    That is a URL for WHEP, the streamConfig of AppStreamer.connect for NVIDIA's player, or both.
    """
    async with cli.client() as client:
        answer = await client.sessions.connect(session_id, wait_s=timeout if wait else None)
    emit(cli.output, answer, [answer.token], show.connection(answer))


@command(app, "viewers")
async def viewers(cli: Cli, session_id: SessionId) -> None:
    """List a session's viewers, also those that have left; newest first."""
    async with cli.client() as client:
        answer = await whole(client.sessions.viewers(session_id))
    emit(cli.output, answer, [each.viewer_id for each in answer.items], show.viewer_table(answer.items, time.time()))


@command(app, "disconnect")
async def disconnect(
    cli: Cli,
    session_id: SessionId,
    viewer_id: Annotated[str, typer.Argument(metavar="VIEWER_ID", help="The viewer's id.")],
    dry_run: DryRun = False,
) -> None:
    """Disconnect a viewer of a session; its grant is refused from now on."""
    async with cli.client() as client:
        answer = await client.sessions.disconnect(session_id, viewer_id, validate_only=dry_run)
    lines = [f"viewer {answer.viewer_id} of session {answer.session_id} is disconnected"]
    emit(cli.output, answer, [answer.viewer_id], lines, dry_run=dry_run)


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


def _emit_one(cli: Cli, session: session_pb2.Session, *, dry_run: bool = False) -> None:
    emit(cli.output, session, [session.session_id], show.session_details(session), dry_run=dry_run)


def _started_over() -> None:
    typer.echo("The server no longer knows all changes; the sessions are printed again as they are now.", err=True)


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


def _states(texts: list[str]) -> list[session_pb2.Session.State.ValueType]:
    from footlights.v1 import session_pb2

    known = dict(session_pb2.Session.State.items())
    del known["STATE_UNSPECIFIED"]
    wanted = [name.strip().upper() for text in texts for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise InvalidArgument("--state", f"unknown state {name!r}; choose from {', '.join(known)}.")
    return [known[name] for name in wanted]
