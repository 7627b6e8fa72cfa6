"""``footlights apps | profiles | pools | nodes | authorities | tokens`` against a real gRPC server.

The modules `commands.apps`, `commands.pools`, `commands.nodes`, `commands.authorities` and `commands.tokens`, with
`calls` and `output`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from footlights.v1 import application_pb2, enrollment_pb2, node_pb2, pool_pb2, profile_pb2, token_pb2
from google.protobuf import message_factory

from tests.cli.conftest import Run
from tests.cli.samples import at, node
from tests.client.standin import Standin
from tests.client.test_client import METHODS

MANIFEST = """
application: {application: demo}
versions:
  - version: 1.0.0
    command: [demo, --stage, "${STAGE}"]
releases: {default: 1.0.0}
"""


def applied(request: application_pb2.ApplyApplicationRequest) -> application_pb2.ApplyApplicationResponse:
    application = application_pb2.Application(application=request.application.application, releases=request.releases)
    return application_pb2.ApplyApplicationResponse(
        application=application, created_versions=["1.0.0"], changed_releases=list(request.releases)
    )


def test_apply_takes_files_stdin_and_packaged_recipes(run: Run, standin: Standin, tmp_path: Path) -> None:
    """Each is one manifest; variables are filled in; what changed is said."""
    file = tmp_path / "demo.yaml"
    file.write_text(MANIFEST)
    standin.on("ApplyApplication", applied)

    done = run("apps", "apply", "usd-viewer", "-f", str(file), "--set", "STAGE=/srv/a.usd")

    assert (done.exit_code, done.stderr) == (0, "")
    requests = standin.requests("ApplyApplication")
    assert [request.application.application for request in requests] == ["demo", "usd-viewer"]
    assert list(requests[0].versions[0].command) == ["demo", "--stage", "/srv/a.usd"]
    assert done.stdout.splitlines()[0] == "demo: version 1.0.0 created, release default -> 1.0.0"


def test_apply_sends_nothing_where_one_file_is_wrong(run: Run, standin: Standin, tmp_path: Path) -> None:
    """All files are read before the first is sent."""
    good, bad = tmp_path / "a.yaml", tmp_path / "b.yaml"
    good.write_text(MANIFEST.replace("${STAGE}", "x"))
    bad.write_text("application: {application: b, colour: red}")

    done = run("apps", "apply", "-f", str(good), "-f", str(bad))
    missing = run("apps", "apply", "-f", str(tmp_path / "c.yaml"))
    nothing = run("apps", "apply")

    assert [result.exit_code for result in (done, missing, nothing)] == [2, 2, 2]
    assert "colour" in done.stderr
    assert "c.yaml" in missing.stderr
    assert "usd-viewer" in nothing.stderr
    assert standin.calls == []


def test_applications_versions_and_releases_are_listed(run: Run, standin: Standin) -> None:
    """Tables have a line each; an empty one is silent on stdout."""
    item = application_pb2.Application(application="demo", display_name="Demo", releases={"default": "1.0.0"})
    versions = [application_pb2.Version(version="1.0.0", description="first", fake=application_pb2.FakeBehavior())]
    standin.on("ListApplications", application_pb2.ListApplicationsResponse(items=[item]))
    standin.on("GetApplication", item)
    standin.on("ListVersions", application_pb2.ListVersionsResponse(items=versions))
    standin.on("ListReleases", application_pb2.ListReleasesResponse())

    listed, shown = run("apps", "list"), run("apps", "show", "demo")
    found, releases = run("apps", "versions", "demo"), run("apps", "releases", "demo")

    assert listed.stdout.splitlines() == [
        "APPLICATION  NAME  RELEASES       AGE",
        "demo         Demo  default=1.0.0  -",
    ]
    assert found.stdout.splitlines() == [
        "VERSION  LAUNCHER  ARGUMENTS  AGE  DESCRIPTION",
        "1.0.0    fake      -          -    first",
    ]
    assert shown.stdout.splitlines()[-1] == found.stdout.splitlines()[-1]
    assert (releases.exit_code, releases.stdout, releases.stderr) == (0, "", "No releases.\n")


def test_releases_are_set_and_things_deleted(run: Run, standin: Standin) -> None:
    """Each form of delete calls its own RPC; both at once is refused."""
    standin.on("SetRelease", application_pb2.Release(release="production", version="1.0.0"))
    standin.on("DeleteApplication", application_pb2.DeleteApplicationResponse())
    standin.on("DeleteVersion", application_pb2.DeleteVersionResponse())
    standin.on("DeleteRelease", application_pb2.DeleteReleaseResponse())

    run("apps", "set-release", "demo", "production", "1.0.0")
    run("apps", "delete", "demo", "--version", "1.0.0")
    run("apps", "delete", "demo", "--release", "default")
    run("apps", "delete", "demo", "--yes")
    both = run("apps", "delete", "demo", "--version", "1.0.0", "--release", "default")

    assert [call.method for call in standin.calls] == [
        "SetRelease",
        "DeleteVersion",
        "DeleteRelease",
        "DeleteApplication",
    ]
    assert both.exit_code == 2


def test_a_release_is_shown_with_its_history(run: Run, standin: Standin) -> None:
    """Newest first, with who; an unknown one is 3."""
    change = application_pb2.Release.Change
    history = [change(version="1.1.0", time=at(60), subject="ann"), change(version="1.0.0", time=at(3600))]
    release = application_pb2.Release(
        application="demo", release="production", version="1.1.0", updated_time=at(60), etag="e1", history=history
    )
    standin.on("GetRelease", release)

    shown, as_json = (run("apps", "show-release", "demo", "production", *more) for more in ((), ("-o", "json")))

    assert shown.stdout.splitlines() == [
        "Application  demo",
        "Release      production",
        "Version      1.1.0",
        "Since        2026-01-01T23:59:00Z",
        "Etag         e1",
        "",
        "TIME                  VERSION  BY",
        "2026-01-01T23:59:00Z  1.1.0    ann",
        "2026-01-01T23:00:00Z  1.0.0    -",
    ]
    assert [each["version"] for each in json.loads(as_json.stdout)["history"]] == ["1.1.0", "1.0.0"]


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        (("apps", "apply", "usd-viewer"), "ApplyApplication"),
        (("apps", "set-release", "demo", "production", "1.0.0"), "SetRelease"),
        (("apps", "delete", "demo"), "DeleteApplication"),
        (("apps", "delete", "demo", "--version", "1.0.0"), "DeleteVersion"),
        (("apps", "delete", "demo", "--release", "default"), "DeleteRelease"),
        (("profiles", "set", "-f", "-"), "SetProfile"),
        (("profiles", "delete", "big"), "DeleteProfile"),
        (("pools", "set", "warm", "--application", "demo", "--size", "2"), "SetPool"),
        (("pools", "delete", "warm"), "DeletePool"),
        (("nodes", "cordon", "gpu-1"), "CordonNode"),
        (("nodes", "uncordon", "gpu-1"), "UncordonNode"),
        (("nodes", "accept", "gpu-1"), "AcceptNode"),
        (("nodes", "drain", "gpu-1", "--wait"), "DrainNode"),
        (("nodes", "forget", "gpu-1"), "ForgetNode"),
        (("nodes", "invite", "gpu-1"), "InviteNode"),
        (("nodes", "revoke", "gpu-1"), "RevokeNode"),
        (("tokens", "create", "--role", "service", "--subject", "portal"), "CreateToken"),
        (("tokens", "revoke", "id1"), "RevokeToken"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_dry_run_only_validates(run: Run, standin: Standin, arguments: tuple[str, ...], method: str) -> None:
    """And says so before what it prints."""
    answer = message_factory.GetMessageClass(METHODS[method].output_type)()
    standin.on(method, answer)

    done = run(*arguments, "--dry-run", stdin="profile: big")

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "Dry run: nothing was changed. Otherwise:"
    assert len(done.stdout.splitlines()) == 2
    assert [request.validate_only for request in standin.requests(method)] == [True]


def test_a_dry_run_on_a_server_that_would_do_it_is_refused(run: Run, standin: Standin) -> None:
    """A server of the release before ignores that the call should only be checked."""
    del standin.answers["GetRelease"]
    standin.on("ForgetNode", node_pb2.ForgetNodeResponse())

    done = run("nodes", "forget", "gpu-1", "--dry-run")

    assert done.exit_code == 1
    assert "earlier release" in done.stderr
    assert standin.requests("ForgetNode") == []


def test_every_page_of_a_list_is_printed(run: Run, standin: Standin) -> None:
    """As one table, and as one answer in the API's form."""

    def page(request: node_pb2.ListNodesRequest) -> node_pb2.ListNodesResponse:
        number = int(request.page_token or 0)
        return node_pb2.ListNodesResponse(
            items=[node_pb2.Node(node=f"gpu-{number}")], next_page_token=str(number + 1) if number < 2 else ""
        )

    standin.on("ListNodes", page)

    named = run("nodes", "list", "-o", "name", "--filter", "cordoned = true")
    as_json = json.loads(run("nodes", "list", "-o", "json").stdout)

    assert named.stdout.splitlines() == ["gpu-0", "gpu-1", "gpu-2"]
    assert {request.filter for request in standin.requests("ListNodes")[:3]} == {"cordoned = true"}
    assert [item["node"] for item in as_json["items"]] == ["gpu-0", "gpu-1", "gpu-2"]
    assert as_json["next_page_token"] == ""


def test_profiles_are_set_from_files(run: Run, standin: Standin, tmp_path: Path) -> None:
    """YAML in the form of the message, from a file or stdin; a wrong member is named."""
    file = tmp_path / "big.yaml"
    file.write_text("profile: big\nneeds: {gpu: true}\nlimits: {max_duration: 3600s}\n")
    standin.on("SetProfile", lambda request: request.profile)
    standin.on("ListProfiles", profile_pb2.ListProfilesResponse(items=[profile_pb2.Profile(profile="big")]))
    standin.on("DeleteProfile", profile_pb2.DeleteProfileResponse())

    done = run("profiles", "set", "-f", str(file), "-f", "-", stdin="profile: small")
    wrong = run("profiles", "set", "-f", "-", stdin="profile: x\nsize: 3")
    listed = run("profiles", "list", "-o", "name")
    deleted = run("profiles", "delete", "big", "-y")

    assert done.stdout == "big is set\nsmall is set\n"
    assert standin.requests("SetProfile")[0].profile.limits.max_duration.seconds == 3600
    assert wrong.exit_code == 2
    assert "size" in wrong.stderr
    assert (listed.stdout, deleted.exit_code) == ("big\n", 0)


def test_nodes_are_taken_out_of_use_and_back(run: Run, standin: Standin) -> None:
    """Each verb reaches its RPC and says the new state."""
    standin.on("ListNodes", node_pb2.ListNodesResponse(items=[node()]))
    standin.on("GetNode", node())
    standin.on("CordonNode", node(state=node_pb2.Node.CORDONED, session_count=2))
    standin.on("UncordonNode", node(state=node_pb2.Node.READY, session_count=0))
    standin.on("ForgetNode", node_pb2.ForgetNodeResponse(ended_session_count=1))

    assert run("nodes", "list", "-o", "name").stdout == "gpu-1\n"
    assert run("nodes", "cordon", "gpu-1", "-m", "broken fan").stdout == "gpu-1 is CORDONED, 2 sessions\n"
    assert standin.requests("CordonNode")[0].message == "broken fan"
    assert run("nodes", "uncordon", "gpu-1").stdout == "gpu-1 is READY\n"
    assert run("nodes", "forget", "gpu-1", "--yes").stdout == "gpu-1 is forgotten; 1 session ended\n"
    assert json.loads(run("nodes", "show", "gpu-1", "-o", "json").stdout)["devices"][0]["uuid"] == "GPU-1"


def test_listing_nodes_says_when_the_server_distrusts_what_it_sees(run: Run, standin: Standin) -> None:
    """On stderr, beside the list; and a node's own notices stand in its details."""
    brake = node_pb2.Brake(reason="MASS_LOSS", message="4 of 5 nodes fell silent together.")
    notice = node_pb2.Node.Notice(reason="DUPLICATE_IDENTITY", message="A second agent tries to link.")
    standin.on("ListNodes", node_pb2.ListNodesResponse(items=[node()], brake=brake))
    standin.on("GetNode", node(notices=[notice]))

    listed = run("nodes", "list", "-o", "name")

    assert (listed.stdout, listed.exit_code) == ("gpu-1\n", 0)
    assert listed.stderr == "Reaping pauses (MASS_LOSS): 4 of 5 nodes fell silent together.\n"
    assert "DUPLICATE_IDENTITY: A second agent tries to link." in run("nodes", "show", "gpu-1").stdout


def test_drain_waits_until_the_node_is_empty(run: Run, standin: Standin) -> None:
    """The deadline is sent, also 0 and none at all; what is left is said; too long is 124."""
    left = iter([1, 0])
    standin.on("DrainNode", node(state=node_pb2.Node.DRAINING, session_count=2))
    standin.on("GetNode", lambda _: node(state=node_pb2.Node.DRAINED, session_count=next(left)))

    done = run("nodes", "drain", "gpu-1", "--deadline", "10m", "--message", "new disk", "--wait")
    at_once = run("nodes", "drain", "gpu-1", "--deadline", "0")
    without = run("nodes", "drain", "gpu-1")
    late = run("nodes", "drain", "gpu-1", "--wait", "--timeout", "0")

    assert (done.exit_code, done.stdout) == (0, "gpu-1 is DRAINED\n")
    said = [line.split(", ended in ") for line in done.stderr.splitlines()]
    assert [what for what, _ in said] == ["gpu-1: 2 sessions left", "gpu-1: 1 session left"]
    assert all(when.startswith("9m") or when == "10m" for _, when in said)
    requests = standin.requests("DrainNode")
    assert [request.drain_timeout.seconds for request in requests[:2]] == [600, 0]
    assert [request.HasField("drain_timeout") for request in requests] == [True, True, False, False]
    assert [request.message for request in requests] == ["new disk", "", "", ""]
    assert (at_once.exit_code, without.exit_code, late.exit_code) == (0, 0, 124)


def test_a_new_tokens_secret_is_alone_on_stdout(run: Run, standin: Standin) -> None:
    """So that a script can take it; the rest is on stderr."""

    def create(request: token_pb2.CreateTokenRequest) -> token_pb2.CreateTokenResponse:
        token = token_pb2.Token(token_id="id1", role=request.role, subject=request.subject, expire_time=at(0))
        return token_pb2.CreateTokenResponse(secret="fl_id1_secret", token=token)

    standin.on("CreateToken", create)

    done = run("tokens", "create", "--role", "node", "--subject", "gpu-1", "--ttl", "30d")

    assert done.stdout == "fl_id1_secret\n"
    assert "gpu-1" in done.stderr
    assert "fl_id1_secret" not in done.stderr
    (request,) = standin.requests("CreateToken")
    assert (request.role, request.ttl.seconds) == (token_pb2.Token.NODE, 30 * 86400)


def test_tokens_are_listed_revoked_and_told(run: Run, standin: Standin) -> None:
    """The rest of the verbs."""
    standin.on("ListTokens", token_pb2.ListTokensResponse(items=[token_pb2.Token(token_id="id1")]))
    standin.on("RevokeToken", token_pb2.Token(token_id="id1"))
    caller = token_pb2.Caller(
        subject="ada", role=token_pb2.Token.DEVELOPER, permissions=["b", "a"], server_version="0.1.0"
    )
    standin.on("GetCaller", caller)

    assert run("tokens", "list", "-o", "name").stdout == "id1\n"
    assert run("tokens", "revoke", "id1").stdout == "id1 is revoked\n"
    assert run("tokens", "whoami").stdout.splitlines() == [
        "Subject      ada",
        "Role         DEVELOPER",
        "Permissions  a, b",
        f"Server       {standin.address}, version 0.1.0",
    ]


def test_a_node_is_invited_and_revoked(run: Run, standin: Standin) -> None:
    """The code alone is on stdout, and on stderr what to do with it."""
    standin.on("InviteNode", enrollment_pb2.InviteNodeResponse(code="fle_x", invitation_id="x", expire_time=at(60)))
    standin.on("RevokeNode", enrollment_pb2.NodeIdentity(node="gpu-1"))

    invited = run("nodes", "invite", "gpu-1", "--ttl", "10m")

    assert invited.stdout == "fle_x\n"
    assert f"footlights agent --server {standin.address} --node gpu-1 --enroll CODE" in invited.stderr
    assert standin.requests("InviteNode")[0].ttl.seconds == 600
    assert run("nodes", "revoke", "gpu-1", "--yes").stdout == "gpu-1 is revoked\n"


def test_pools_are_set_shown_and_deleted(run: Run, standin: Standin) -> None:
    """A size or a wait goal is sent as given; the list says how many are ready and why there are not more."""
    instance = pool_pb2.Pool.Instance(launch_id="launch-1", state=pool_pb2.Pool.Instance.READY, node="gpu-1")
    shown = pool_pb2.Pool(
        pool="warm",
        application="demo",
        resolved_version="1.2.0",
        size=2,
        wanted_count=2,
        ready_count=1,
        status_message="No slot is free.",
        instances=[instance],
    )
    standin.on("SetPool", lambda request: request.pool)
    standin.on("ListPools", pool_pb2.ListPoolsResponse(items=[shown]))
    standin.on("GetPool", shown)
    standin.on("DeletePool", pool_pb2.DeletePoolResponse())

    fixed = run("pools", "set", "warm", "-a", "demo", "--version", "production", "--size", "0")
    goal = run("pools", "set", "warm", "-a", "demo", "--profile", "big", "--wait-goal", "5s", "--max-size", "4")
    listed, one = run("pools", "list"), run("pools", "show", "warm")

    first, second = (request.pool for request in standin.requests("SetPool"))
    assert (fixed.stdout, goal.exit_code) == ("warm is set\n", 0)
    assert (first.application_version, first.HasField("size"), first.size) == ("production", True, 0)
    assert (second.profile, second.wait_goal.seconds, second.max_size) == ("big", 5, 4)
    assert not second.HasField("size")
    assert "demo@1.2.0" in listed.stdout
    assert "1+0/2" in listed.stdout
    assert all(text in one.stdout for text in ("No slot is free.", "launch-1", "READY", "gpu-1"))
    assert run("pools", "delete", "warm", "-y").stdout == "warm is deleted\n"


@pytest.mark.parametrize("group", ["apps", "sessions", "nodes", "pools", "profiles", "tokens"])
def test_every_command_of_a_group_has_help(run: Run, group: str) -> None:
    """Each is listed with a sentence, and explains its own options."""
    listed: Any = run(group, "--help")
    commands = [line.split()[0] for line in listed.stdout.partition("Commands:")[2].splitlines() if line.strip()]

    assert len(commands) >= 3
    for command in commands:
        shown = run(group, command, "--help")
        assert shown.exit_code == 0
        # It asks no server and prints one secret.
        assert "--output" in shown.stdout or command == "recover"


def test_the_authority_is_replaced(run: Run, standin: Standin) -> None:
    """The list says which one signs and how many nodes have certificates of which; retiring sends what was said."""
    known = enrollment_pb2.Authorities(
        items=[
            enrollment_pb2.Authority(authority_id="new", create_time=at(60), expire_time=at(90), node_count=1),
            enrollment_pb2.Authority(authority_id="old", create_time=at(0), expire_time=at(90), node_count=2),
        ]
    )
    for method in ("GetAuthorities", "RotateAuthority", "RetireAuthorities"):
        standin.on(method, known)

    listed = run("authorities", "list")
    rotated = run("authorities", "rotate", "--ttl", "365d")
    retired = run("authorities", "retire", "--yes", "--force", "-o", "name")

    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:]] == [["new", "signs"], ["old", "trusted"]]
    assert "footlights authorities retire" in rotated.stderr
    assert retired.stdout.split() == ["new", "old"]
    assert standin.requests("RotateAuthority")[0].ttl.seconds == 365 * 86400
    assert standin.requests("RetireAuthorities")[0].force


def test_a_profiles_secret_is_given_by_file(run: Run, standin: Standin, tmp_path: Path) -> None:
    """A file of its own, or stdin; the answer has none of it."""
    standin.on("SetProfile", lambda request: profile_pb2.Profile(profile=request.profile.profile))
    file = tmp_path / "big.yaml"
    file.write_text('profile: big\nenvironment: {OMNI_PASS: "{omni_pass}"}\nsecrets: {kept: "[redacted]"}\n')

    done = run("profiles", "set", "-f", str(file), "--secret-file", "omni_pass=-", stdin="hunter2\n")
    several = run("profiles", "set", "-f", str(file), "-f", str(file), "--secret-file", "omni_pass=-", stdin="x")

    assert dict(standin.requests("SetProfile")[0].profile.secrets) == {"kept": "[redacted]", "omni_pass": "hunter2"}
    assert "hunter2" not in done.stdout + done.stderr
    assert several.exit_code == 2
