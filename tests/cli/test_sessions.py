"""``footlights sessions`` against a real gRPC server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from footlights.v1 import session_pb2, viewer_pb2
from google.protobuf.json_format import MessageToDict

from footlights.errors import (
    Conflict,
    Error,
    Exhausted,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    Reason,
    Unauthenticated,
    Unavailable,
)
from tests.cli.conftest import Run
from tests.cli.samples import S, milestones, pending, session
from tests.client.standin import Frame, Standin, frame, frames


def test_create_sends_what_it_was_told(run: Run, standin: Standin) -> None:
    """Every option reaches its member; arguments are JSON where they are any."""
    standin.on("CreateSession", session(S.STARTING))

    done = run(
        *("sessions", "create", "usd-viewer", "--version", "1.0.0", "--stage", "/srv/a.usd", "--profile", "big"),
        *("--arg", "n=5", "--arg", "name=x=y", "--arg", 's="5"', "--arg", "on=true", "--arg", 'list=[{"a":1}]'),
        *("--label", "team=b", "--priority", "7", "--max-duration", "1h30m", "--idle-timeout", "90"),
        *("--request-id", "r1", "--user", "bob", "-o", "name"),
    )

    assert (done.exit_code, done.stdout) == (0, "s-1\n")
    (request,) = standin.requests("CreateSession")
    assert MessageToDict(request, preserving_proto_field_name=True) == {
        "application": "usd-viewer",
        "application_version": "1.0.0",
        "application_arguments": {
            "usd_stage_uri": "/srv/a.usd",
            "n": 5.0,
            "name": "x=y",
            "s": "5",
            "on": True,
            "list": [{"a": 1.0}],
        },
        "profile": "big",
        "request_id": "r1",
        "max_duration": "5400s",
        "idle_timeout": "90s",
        "priority": 7,
        "labels": {"team": "b"},
        "username": "bob",
    }


def test_waiting_shows_each_step_once_and_ends_ready(run: Run, standin: Standin) -> None:
    """Without a terminal: a plain line a step on stderr, the session on stdout."""
    steps = milestones((S.Milestone.QUEUED, 0), (S.Milestone.PLACED, 1.5), (S.Milestone.APPLICATION_READY, 3))
    standin.on("CreateSession", pending("s-1"))
    standin.on(
        "FollowSessions",
        frames(
            pending("s-1", 1), session(S.STARTING, revision=2, timeline=steps[:2]), session(revision=3, timeline=steps)
        ),
    )

    done = run("sessions", "create", "usd-viewer", "--wait", "-o", "json")

    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        "s-1  number 3 in the queue, about 40s: NO_SLOT: 2 devices",
        "s-1  QUEUED +0.0s",
        "s-1  PLACED +1.5s",
        "s-1  APPLICATION_READY +3.0s",
    ]
    assert json.loads(done.stdout)["state"] == "READY"


def test_waiting_for_a_session_that_fails_is_6(run: Run, standin: Standin) -> None:
    """The line says how it ended."""
    standin.on("CreateSession", session(S.STARTING))
    failed = session(S.FAILED, revision=2, end_reason=S.CRASHED, status_message="exit status 3")
    standin.on("FollowSessions", frames(failed))

    done = run("sessions", "create", "usd-viewer", "--wait")

    assert (done.exit_code, done.stdout) == (6, "")
    assert done.stderr == "error: Session s-1 is FAILED (CRASHED): exit status 3\n"


@pytest.mark.parametrize(("form", "printed"), [("name", "s-1\n"), ("json", '"end_reason": "CRASHED"')])
def test_a_program_that_waited_learns_which_session_failed(run: Run, standin: Standin, form: str, printed: str) -> None:
    """With ``-o`` the session is on stdout also where waiting ended otherwise, and the exit code stays."""
    failed = session(S.FAILED, revision=2, end_reason=S.CRASHED, status_message="exit status 3")
    standin.on("CreateSession", session(S.STARTING))
    standin.on("FollowSessions", frames(failed))
    standin.on("GetSession", failed)

    done = run("sessions", "create", "usd-viewer", "--wait", "-o", form)

    assert done.exit_code == 6
    assert printed in done.stdout
    assert done.stderr == "error: Session s-1 is FAILED (CRASHED): exit status 3\n"


def test_waiting_too_long_is_124(run: Run, standin: Standin) -> None:
    """The line names the session, which goes on."""

    def forever(_: Any) -> Iterator[Frame]:
        yield frame(pending("s-1"))
        standin.stopping.wait(10)

    standin.on("CreateSession", pending("s-1"))
    standin.on("FollowSessions", forever)

    done = run("sessions", "create", "usd-viewer", "--wait", "--timeout", "2s")
    standin.stopping.set()

    assert done.exit_code == 124
    assert "Session s-1 is still PENDING" in done.stderr


def test_each_violation_has_a_line_of_its_own(run: Run, standin: Standin) -> None:
    """All that is wrong with a request is shown at once."""
    both = [InvalidArgument("application", "is required."), InvalidArgument("priority", "must be at most 100.")]
    standin.on("GetSession", InvalidArgument.joined(both))

    done = run("sessions", "show", "s-9")

    assert done.exit_code == 2
    assert [line.strip() for line in done.stderr.splitlines()] == [
        "error: application: is required.", "priority: must be at most 100.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgument("application", "'x' is unknown. See footlights apps list."), 2),
        (NotFound("There is no session s-9."), 3),
        (PermissionDenied("Not yours."), 4),
        (Unauthenticated("No token was given.", reason=Reason.TOKEN_MISSING), 4),
        (Exhausted("The queue is full."), 5),
    ],
)
def test_errors_have_their_exit_codes_and_no_traceback(run: Run, standin: Standin, error: Any, code: int) -> None:
    """One or two lines on stderr, nothing on stdout."""
    standin.on("GetSession", error)

    done = run("sessions", "show", "s-9")

    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith(f"error: {error.message}\n")
    assert len(done.stderr.splitlines()) <= 2


def test_a_server_that_is_not_there_is_5_and_says_what_to_do(run: Run) -> None:
    """The line says what to start or give."""
    done = run("sessions", "list", "--server", "127.0.0.1:1")

    assert done.exit_code == 5
    assert "footlights up" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_token_says_how_to_give_one(run: Run, standin: Standin) -> None:
    """The second line is the fix."""
    standin.on("ListSessions", Unauthenticated("No token was given.", reason=Reason.TOKEN_MISSING))

    assert "FOOTLIGHTS_TOKEN_FILE" in run("sessions", "list", FOOTLIGHTS_TOKEN="").stderr


def test_list_asks_for_what_was_wanted_and_reads_every_page(run: Run, standin: Standin) -> None:
    """Filters reach the server; pages are followed up to the limit; the table has a line each."""

    def page(request: session_pb2.ListSessionsRequest) -> session_pb2.ListSessionsResponse:
        number = int(request.page_token or 0)
        found = [session(session_id=f"s-{number}")]
        return session_pb2.ListSessionsResponse(items=found, next_page_token=str(number + 1) if number < 2 else "")

    standin.on("ListSessions", page)

    done = run(
        "sessions", "list", "--state", "ready,ACTIVE", "--state", "PENDING", "--user", "ada", "--application", "a"
    )

    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["SESSION", "s-0", "s-1", "s-2"]
    first = standin.requests("ListSessions")[0]
    assert (list(first.state), first.username, first.application) == ([S.READY, S.ACTIVE, S.PENDING], "ada", "a")


def test_list_stops_at_its_limit_and_says_so(run: Run, standin: Standin) -> None:
    """What is cut off is not hidden."""
    standin.on("ListSessions", session_pb2.ListSessionsResponse(items=[session()], next_page_token="x"))

    done = run("sessions", "list", "--limit", "1", "-o", "name")

    assert done.stdout == "s-1\n"
    assert "More than 1 sessions match" in done.stderr


def test_list_asks_for_expressions_orders_and_what_has_ended(run: Run, standin: Standin) -> None:
    """As they are written; --all is the other word for --ended. An unknown state is refused here with what there is."""
    standin.on("ListSessions", session_pb2.ListSessionsResponse())

    run("sessions", "list", "--filter", 'end_reason = "CRASHED"', "--order", "ended_time desc", "--ended")
    run("sessions", "list", "--all")
    wrong = run("sessions", "list", "--state", "RUNNING")

    first, second = standin.requests("ListSessions")
    assert (first.filter, first.order_by, first.include_ended) == ('end_reason = "CRASHED"', "ended_time desc", True)
    assert (second.include_ended, list(second.state)) == (True, [])
    assert wrong.exit_code == 2
    assert "unknown state 'RUNNING'; choose from PENDING" in wrong.stderr


def test_update_changes_what_it_names(run: Run, standin: Standin) -> None:
    """Each option is a path of the mask; a label that is removed is named and absent; the etag is passed on."""
    standin.on("UpdateSession", session(labels={"team": "b"}, etag="e2"))

    done = run(
        *("sessions", "update", "s-1", "--label", "team=b", "--label", "a.b=c", "--remove-label", "old"),
        *("--priority", "0", "--max-duration", "2h", "--idle-timeout", "10m", "--if-match", "e1"),
    )

    assert done.exit_code == 0
    assert "Etag         e2" in done.stdout.splitlines()
    (request,) = standin.requests("UpdateSession")
    assert list(request.update_mask.paths) == [
        *("labels.`a.b`", "labels.`team`", "labels.`old`", "priority", "limits.max_duration", "limits.idle_timeout"),
    ]
    assert MessageToDict(request.session, preserving_proto_field_name=True) == {
        "session_id": "s-1",
        "labels": {"team": "b", "a.b": "c"},
        "limits": {"max_duration": "7200s", "idle_timeout": "600s"},
    }
    assert (request.etag, request.validate_only) == ("e1", False)


def test_a_session_that_has_changed_meanwhile_is_not_updated(run: Run, standin: Standin) -> None:
    """The server's own words, and 1."""
    standin.on("UpdateSession", Conflict("It has changed. Read it again.", reason=Reason.ETAG_MISMATCH))

    done = run("sessions", "update", "s-1", "--priority", "3", "--if-match", "e1")

    assert (done.exit_code, done.stderr) == (1, "error: It has changed. Read it again.\n")


def test_a_dry_run_says_that_nothing_was_changed(run: Run, standin: Standin) -> None:
    """It only validates, waits for nothing, and its word does not mix with what programs read."""
    standin.on("CreateSession", session(S.PENDING))
    standin.on("UpdateSession", session())
    standin.on("ExtendSession", session())
    standin.on("TerminateSession", session_pb2.TerminateSessionResponse())
    word = "Dry run: nothing was changed."

    created = run("sessions", "create", "usd-viewer", "--wait", "--dry-run")
    updated = run("sessions", "update", "s-1", "--priority", "3", "--dry-run", "-o", "json")
    extended = run("sessions", "extend", "s-1", "--by", "1h", "--dry-run", "-o", "name")
    ended = run("sessions", "terminate", "s-1", "--wait", "--dry-run")

    assert [done.exit_code for done in (created, updated, extended, ended)] == [0, 0, 0, 0]
    assert created.stdout.startswith(word)
    assert ended.stdout.startswith(word)
    assert (json.loads(updated.stdout)["session_id"], extended.stdout) == ("s-1", "s-1\n")
    assert all(done.stderr.startswith(word) for done in (updated, extended))
    for method in ("CreateSession", "UpdateSession", "ExtendSession", "TerminateSession"):
        assert [request.validate_only for request in standin.requests(method)] == [True]


def test_json_and_yaml_have_the_apis_names(run: Run, standin: Standin) -> None:
    """The whole answer, under the API's member names, also those that are zero."""
    standin.on("ListSessions", session_pb2.ListSessionsResponse(items=[session()]))

    by_json = json.loads(run("sessions", "list", "-o", "json").stdout)
    by_yaml = yaml.safe_load(run("sessions", "list", "-o", "yaml").stdout)

    assert by_json == by_yaml
    assert by_json["items"][0]["session_id"] == "s-1"
    assert by_json["count"] == 0


def test_no_text_of_others_is_obeyed_by_the_terminal(run: Run, standin: Standin) -> None:
    """Escape sequences in labels, messages and arguments are shown, in every format (the log: `test_terminal`)."""
    evil = "\x1b]0;owned\x07\x9b2J\u202e[/red]"
    shown = session(S.FAILED, labels={"team": evil}, status_message=evil, failure_reason="X", log_tail=[evil])
    shown.application_arguments.update({"text": evil})
    standin.on("GetSession", shown)
    standin.on("ListSessions", session_pb2.ListSessionsResponse(items=[shown]))
    standin.on("TerminateSession", InvalidArgument("session_id", f"is {evil}"))

    for arguments in (("show", "s-1"), ("list",), ("terminate", "s-1")):
        for form in ("table", "json", "yaml", "name"):
            done = run("sessions", *arguments, "-o", form)
            text = done.stdout + done.stderr
            assert not any(each in text for each in "\x1b\x07\x9b\u202e"), (arguments, form, text)
            if form == "table":
                assert "\\x1b]0;owned\\x07\\x9b2J\\u202e[/red]" in text


def test_an_argument_that_is_no_utf8_is_refused_by_name(run: Run, standin: Standin) -> None:
    """Python makes halves of surrogate pairs of its bytes, which no message can carry."""
    done = run("sessions", "show", "a\udcffb")

    assert done.exit_code == 2
    assert "a\\udcffb is not UTF-8." in done.stderr


def test_watch_prints_every_change_until_the_end(run: Run, standin: Standin) -> None:
    """A line a change; as JSON one object a line. Marks without a session are not shown."""
    changes: list[S | Frame] = [
        pending("s-1", 1),
        Frame(change=Frame.SYNCED, cursor="c"),
        session(S.READY, revision=2),
        session(S.TERMINATED, revision=3, end_reason=S.COMPLETED),
    ]
    standin.on("FollowSessions", frames(*changes))

    plain, as_json = run("sessions", "watch", "s-1"), run("sessions", "watch", "s-1", "-o", "json")

    assert plain.stdout.splitlines() == [
        "s-1  PENDING      number 3 in the queue, about 40s: NO_SLOT: 2 devices",
        "s-1  READY        on gpu-1, NVIDIA L40",
        "s-1  TERMINATED   on gpu-1, NVIDIA L40  COMPLETED",
    ]
    assert [json.loads(line)["state"] for line in as_json.stdout.splitlines()] == ["PENDING", "READY", "TERMINATED"]


def test_watch_of_a_filter_says_what_no_longer_matches(run: Run, standin: Standin) -> None:
    """And that it had to start over where the server could not go on; another error ends it as ever."""
    removed = Frame(change=Frame.REMOVED, session=S(session_id="s-1"), cursor="c9")
    script: Iterator[Error | list[Frame]] = iter(
        [
            [frame(session()), removed],
            OutOfRange("gone", reason=Reason.CURSOR_GONE),
            [frame(session())],
            NotFound("no more"),
        ]
    )

    def answer(_: Any) -> Iterator[Frame]:
        told = next(script)
        if isinstance(told, Error):
            raise told
        yield from told
        raise Unavailable("restarting")

    standin.on("FollowSessions", answer)

    done = run("sessions", "watch", "--filter", "priority > 3")

    assert [line.split()[1] for line in done.stdout.splitlines()] == ["READY", "REMOVED", "READY"]
    assert "printed again" in done.stderr
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (3, "error: no more")
    assert {request.filter for request in standin.requests("FollowSessions")} == {"priority > 3"}


def test_terminate_waits_until_the_device_is_free(run: Run, standin: Standin) -> None:
    """Several at once; with --wait each is waited for."""
    standin.on("TerminateSession", session_pb2.TerminateSessionResponse(status="deleted"))
    standin.on("FollowSessions", frames(session(S.TERMINATING), session(S.TERMINATED, revision=2)))

    done = run("sessions", "terminate", "s-1", "s-2", "--wait")

    assert done.stdout == "s-1 has ended\ns-2 has ended\n"
    assert [request.session_id for request in standin.requests("TerminateSession")] == ["s-1", "s-2"]


def test_the_log_is_printed_as_it_is(run: Run, standin: Standin) -> None:
    """Lines on stdout, what is left out on stderr; --follow prints what comes."""
    standin.on("GetSessionLog", session_pb2.SessionLog(lines=["a", "  [b] :c:"], truncated=True))
    parts = [session_pb2.SessionLog(lines=["a", "b"]), session_pb2.SessionLog(lines=["c"])]
    standin.on("TailSessionLog", lambda _: iter(parts))

    once, following = run("sessions", "log", "s-1", "--tail", "2"), run("sessions", "log", "s-1", "-f")

    assert (once.stdout, once.stderr) == ("a\n  [b] :c:\n", "(earlier lines are omitted)\n")
    assert following.stdout == "a\nb\nc\n"
    assert standin.requests("GetSessionLog")[0].tail_lines == 2


def test_extend_and_connect_and_explain(run: Run, standin: Standin) -> None:
    """The rest of the verbs reach their RPCs with what they were given."""
    standin.on("ExtendSession", session())
    standin.on("ConnectSession", session_pb2.ConnectSessionResponse(token="flg_x", whep_url="u"))
    standin.on("ExplainPlacement", session_pb2.ExplainPlacementResponse(fits=True, node="gpu-1", device="GPU-1"))

    done = [
        run("sessions", "extend", "s-1", "--by", "30m"),
        run("sessions", "connect", "s-1", "-o", "name"),
        run("sessions", "explain", "usd-viewer", "--profile", "big"),
    ]

    assert [result.exit_code for result in done] == [0, 0, 0]
    assert standin.requests("ExtendSession")[0].extend_by.seconds == 1800
    assert done[1].stdout == "flg_x\n"
    assert done[2].stdout.startswith("It would be placed now, on gpu-1, device GPU-1.")
    assert standin.requests("ExplainPlacement")[0].profile == "big"


def test_connect_prints_what_the_player_takes(run: Run, standin: Standin) -> None:
    """The WHEP URL, or JSON that is pasted into NVIDIA's player; nothing of WHEP where there is none."""
    config: dict[str, Any] = {
        "signalingServer": "h",
        "signalingPort": 8080,
        "accessToken": "flg_x",
        "authenticate": True,
    }
    kit = session_pb2.ConnectSessionResponse(token="flg_x", signaling_url="ws://h:8080/stream/s-1/sign_in")
    kit.app_streamer.update(config)
    said = []
    for answer in (
        kit,
        session_pb2.ConnectSessionResponse(token="t", whep_url="u"),
        session_pb2.ConnectSessionResponse(),
    ):
        standin.on("ConnectSession", answer)
        said.append(run("sessions", "connect", "s-1").stdout)

    before, _, pasted = said[0].partition("AppStreamer.connect:\n")
    assert json.loads(pasted) == config
    assert "8080.0" not in pasted
    assert "WHEP" not in before
    assert "WHEP" in said[1]
    assert "AppStreamer" not in said[1]
    assert "names no signalling" in said[2]


def test_viewers_are_listed_and_disconnected(run: Run, standin: Standin) -> None:
    """Each on its line; ``-o name`` gives the ids that ``disconnect`` takes."""
    viewer = viewer_pb2.Viewer(viewer_id="v1", session_id="s-1", state=viewer_pb2.Viewer.CONNECTED, subject="ann")
    standin.on("ListViewers", viewer_pb2.ListViewersResponse(items=[viewer]))
    standin.on("DisconnectViewer", viewer)

    listed, names = run("sessions", "viewers", "s-1"), run("sessions", "viewers", "s-1", "-o", "name")
    ended = run("sessions", "disconnect", "s-1", "v1")

    assert [line.split() for line in listed.stdout.splitlines()][1] == ["v1", "CONNECTED", "ann", "-"]
    assert names.stdout == "v1\n"
    assert (ended.exit_code, ended.stdout) == (0, "viewer v1 of session s-1 is disconnected\n")
    request = standin.requests("DisconnectViewer")[0]
    assert (request.session_id, request.viewer_id) == ("s-1", "v1")


@pytest.mark.parametrize(
    "arguments",
    [
        ("sessions", "create"),
        ("sessions", "create", "a", "--arg", "novalue"),
        ("sessions", "create", "a", "--max-duration", "soon"),
        ("sessions", "create", "a", "--stage", "/a", "--arg", "usd_stage_uri=/b"),
        ("sessions", "list", "-o", "xml"),
        ("sessions", "update", "s"),
        ("sessions", "update", "s", "--label", "a=b", "--remove-label", "a"),
        ("sessions", "frobnicate"),
        ("sessions", "show", "s", "--token-file", "/nonexistent", "--token", ""),
    ],
)
def test_usage_errors_are_2_and_call_nothing(run: Run, standin: Standin, arguments: tuple[str, ...]) -> None:
    """What is wrong is said before anything is sent."""
    done = run(*arguments, FOOTLIGHTS_TOKEN="")

    assert done.exit_code == 2
    assert done.stderr
    assert standin.calls == []


def test_the_token_comes_from_option_variable_or_file(run: Run, standin: Standin, tmp_path: Any) -> None:
    """In this order; a file's line end is not part of it."""
    file = tmp_path / "token"
    file.write_text("from-file\n")
    standin.on("GetSession", session())

    run("sessions", "show", "s-1", "--token", "from-option", "--token-file", str(file))
    run("sessions", "show", "s-1", "--token-file", str(file), FOOTLIGHTS_TOKEN="from-variable")
    run("sessions", "show", "s-1", FOOTLIGHTS_TOKEN="", FOOTLIGHTS_TOKEN_FILE=str(file))

    assert [call.authorization for call in standin.calls] == [
        "Bearer from-option",
        "Bearer from-variable",
        "Bearer from-file",
    ]


def test_an_unexpected_error_is_one_line_with_a_way_to_see_more(run: Run, standin: Standin) -> None:
    """Never a traceback, unless it is asked for."""
    standin.on("GetSession", lambda _: threading.Lock())  # not a message: the server fails

    done = run("sessions", "show", "s-1")

    assert done.exit_code == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")


def test_unavailable_says_when_it_was_the_servers_own_word(run: Run, standin: Standin) -> None:
    """A reason of the server's is shown as it is."""
    standin.on("GetSession", Unavailable("Restarting. Try again in a minute.", reason=Reason.SERVER_STOPPING))

    done = run("sessions", "show", "s-1")

    assert (done.exit_code, done.stderr) == (5, "error: Restarting. Try again in a minute.\n")


def test_a_secret_is_given_by_file(run: Run, standin: Standin, tmp_path: Path) -> None:
    """As it is, without the line end that editors add: it is not JSON, and on no command line."""
    standin.on("CreateSession", session(S.STARTING))
    file = tmp_path / "pass"
    file.write_text("0123\n")

    done = run("sessions", "create", "a", "--secret-file", f"omni_pass={file}", "--arg", "n=1")
    missing = run("sessions", "create", "a", "--secret-file", f"omni_pass={file}.not")

    assert done.exit_code == 0
    assert dict(standin.requests("CreateSession")[0].application_arguments) == {"omni_pass": "0123", "n": 1}
    assert (missing.exit_code, "--secret-file" in missing.stderr) == (2, True)
