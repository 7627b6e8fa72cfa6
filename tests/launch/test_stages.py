"""Which stages a session may open."""

from __future__ import annotations

import posixpath

import pytest
from footlights.v1.application_pb2 import Container, FakeBehavior, StageDelivery, Version
from hypothesis import given
from hypothesis import strategies as st

from footlights.errors import InvalidArgument
from footlights.launch.recipe.stages import (
    STAGE_FIELD,
    StageError,
    all_roots,
    delivery_of,
    parse_root,
    parse_stage,
    resolve_stage,
    unopened,
    unopened_by,
    without_query,
)

VERSION = Version(
    default_usd_stage_uri="/opt/default.usd",
    allowed_stage_roots=[
        "/srv/stages",
        "https://assets.example.com/public/",
        "omniverse://nucleus.example.com/",
        "http://[2001:db8::1]:8080/a",
    ],
)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("", "/opt/default.usd"),
        ("/opt/default.usd", "/opt/default.usd"),
        ("/srv/stages/a.usd", "/srv/stages/a.usd"),
        ("/srv/stages//deep/a b.usd", "/srv/stages/deep/a b.usd"),
        ("/srv/stages/100%/a%20b.usd", "/srv/stages/100%/a%20b.usd"),
        ("file:///srv/stages/a%20b.usd", "/srv/stages/a b.usd"),
        ("file://localhost/srv/stages/a.usd", "/srv/stages/a.usd"),
        ("https://assets.example.com/public/a.usd", "https://assets.example.com/public/a.usd"),
        ("HTTPS://Assets.Example.COM:443/public/a.usd", "https://assets.example.com:443/public/a.usd"),
        ("https://assets.example.com/public/a.usd?sig=a/../b", "https://assets.example.com/public/a.usd?sig=a/../b"),
        ("https://assets.example.com/public/a%20b.usd", "https://assets.example.com/public/a%20b.usd"),
        ("omniverse://nucleus.example.com/Projects/a.usd", "omniverse://nucleus.example.com/Projects/a.usd"),
        ("http://[2001:DB8::1]:8080/a/b.usd", "http://[2001:db8::1]:8080/a/b.usd"),
    ],
)
def test_allowed(uri: str, expected: str) -> None:
    """A stage below a root is given to the application in its normal form."""
    assert resolve_stage(VERSION, uri) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "/srv/stages-secret/a.usd",
        "/srv/stages/../secret/a.usd",
        "/srv/stages/..",
        "/srv/./stages/a.usd",
        "srv/stages/a.usd",
        "../srv/stages/a.usd",
        "file:///srv/stages/%2e%2e/secret",
        "file:///srv/stages/..%2fsecret",
        "file:///srv/stages/%252e%252e/secret",
        "file:/srv/stages/a.usd",
        "file://evil.example.com/srv/stages/a.usd",
        "https://assets.example.com/private/a.usd",
        "https://assets.example.com/publicity/a.usd",
        "https://assets.example.com/public/../private/a.usd",
        "https://assets.example.com/public/%2e%2e/private/a.usd",
        "https://assets.example.com/public/..%2Fprivate",
        "https://assets.example.com/public%2f..%2fprivate",
        "https://assets.example.com/public/%5c..%5cprivate",
        "https://assets.example.com/public\\..\\private",
        "https://assets.example.com.evil.org/public/a.usd",
        "https://assets.example.com@evil.org/public/a.usd",
        "https://user:pass@assets.example.com/public/a.usd",
        "https://assets.example.com:8443/public/a.usd",
        "https://assets.example.com:99999/public/a.usd",
        "http://assets.example.com/public/a.usd",
        "https:/assets.example.com/public/a.usd",
        "https:///public/a.usd",
        "https://assets.example.com/public/a.usd#frag",
        "https://assets.example.com/public/%zz",
        "https://assets\u3002example.com/public/a.usd",
        "https://assets.example.com/pub\tlic/a.usd",
        "omniverse://other.example.com/a.usd",
        "javascript:alert(1)",
        "-rf",
        "/srv/stages/a\nb.usd",
        "/srv/stages/a\0.usd",
        "//assets.example.com/public/a.usd",
        "/srv/stages/" + "a" * 5000,
    ],
)
def test_refused(uri: str) -> None:
    """What is not plainly below a root is refused, and the error names the argument."""
    with pytest.raises(InvalidArgument) as caught:
        resolve_stage(VERSION, uri)

    assert caught.value.field == STAGE_FIELD
    assert caught.value.reason in ("STAGE_NOT_ALLOWED", "STAGE_MALFORMED")


def test_refusal_names_the_roots() -> None:
    """The error for a stage elsewhere names the value and the allowed roots."""
    with pytest.raises(InvalidArgument, match=r"'/etc/passwd'.*/srv/stages, https://assets"):
        resolve_stage(VERSION, "/etc/passwd")


def test_credentials_are_not_shown() -> None:
    """The error for a URL with credentials does not repeat them."""
    with pytest.raises(InvalidArgument) as caught:
        resolve_stage(VERSION, "https://user:hunter2@assets.example.com/public/a.usd")

    assert "hunter2" not in str(caught.value)


def test_no_roots_and_no_default() -> None:
    """A version without roots opens its default stage or nothing."""
    assert resolve_stage(Version(), "") == ""
    with pytest.raises(InvalidArgument, match="none but the default stage"):
        resolve_stage(Version(), "/a.usd")


@given(st.text(alphabet="/.%2eEfF5cC\\a:", max_size=30))
def test_no_path_gets_out(tail: str) -> None:
    """Whatever is appended to a root, what is allowed lies in the root by the file system's own reading."""
    for prefix in ("/srv/stages/", "file:///srv/stages/"):
        try:
            resolved = resolve_stage(Version(allowed_stage_roots=["/srv/stages"]), prefix + tail)
        except InvalidArgument:
            continue
        assert resolved == posixpath.normpath(resolved)
        assert resolved == "/srv/stages" or resolved.startswith("/srv/stages/")


@given(st.text(alphabet="/.%2eEfF5cC\\@:#?a", max_size=30))
def test_no_url_gets_out(tail: str) -> None:
    """Whatever is appended to a URL root, what is allowed has the root's host and lies below its path."""
    version = Version(allowed_stage_roots=["https://a.example/public"])
    try:
        resolved = resolve_stage(version, "https://a.example/public" + tail)
    except InvalidArgument:
        return
    path, _, _ = resolved.removeprefix("https://a.example").removeprefix(":443").partition("?")
    assert path == "/public" or path.startswith("/public/")
    assert ".." not in path.lower().replace("%2e", ".").split("/")


@given(st.text(max_size=40))
def test_parsing_is_stable(text: str) -> None:
    """A normal form is its own normal form."""
    try:
        stage = parse_stage(text)
    except StageError:
        return
    assert parse_stage(stage.text).text == stage.text


@pytest.mark.parametrize("root", ["srv", "https://", "https://a/x?y", "/a/../b", "https://u@a/", "ftp:/x", ""])
def test_malformed_roots(root: str) -> None:
    """A root that is no directory and no URL prefix is refused."""
    with pytest.raises(StageError):
        parse_root(root)


SIGNED = "https://store.example/stages/a.usd?X-Amz-Signature=0123abc"


@pytest.mark.parametrize(
    "uri",
    [
        SIGNED.replace("stages", "other"),
        SIGNED + "#x",
        SIGNED.replace("/a.usd", "/../a.usd"),
        f"{SIGNED}\x7f",
        f" {SIGNED}",
        SIGNED[6:],
        SIGNED[8:],
    ],
)
def test_no_message_shows_a_query(uri: str) -> None:
    """It may be a signature: whoever reads an error or a log must not be let in by it."""
    version = Version(allowed_stage_roots=["https://store.example/stages/"])
    with pytest.raises(InvalidArgument) as caught:
        resolve_stage(version, uri)

    assert "0123abc" not in f"{caught.value.message} {caught.value.metadata}"
    assert without_query(resolve_stage(version, SIGNED)) == "https://store.example/stages/a.usd?[redacted]"


def test_the_roots_of_all_that_a_stage_pulls_in() -> None:
    """Those of the version, and where its default stage is."""
    version = Version(allowed_stage_roots=["/srv/a", "https://h/b/"], default_usd_stage_uri="file:///srv/c/d.usd")

    assert all_roots(version) == ["/srv/a", "https://h/b/", "/srv/c", "/srv/c/d.usd"]
    assert all_roots(Version()) == []


@pytest.mark.parametrize(
    ("version", "method", "says"),
    [
        (Version(command=["a", "--open={usd_stage_uri}"]), "COMMAND", ""),
        (Version(environment={"USD_PATH": "{usd_stage_uri}"}), "COMMAND", ""),
        (Version(command=["a"], stage_from_session_file=True), "SESSION_FILE", ""),
        (Version(fake=FakeBehavior()), "COMMAND", ""),
        (Version(command=["a", "{{usd_stage_uri}}"]), "NONE", "is not opened: the version takes no stage"),
        (Version(container=Container(image="a")), "NONE", "is not opened: the version takes no stage"),
        (
            Version(command=["a", "{usd_stage_uri}"], stage_delivery=StageDelivery(method=StageDelivery.MESSAGE)),
            "MESSAGE",
            "send openStageRequest",
        ),
        (Version(stage_delivery=StageDelivery(method=StageDelivery.HTTP, path="/a")), "HTTP", ""),
    ],
)
def test_how_a_version_is_given_its_stage(version: Version, method: str, says: str) -> None:
    """As it says, or else as its command shows; where that opens nothing, the session says what to do."""
    assert StageDelivery.Method.Name(delivery_of(version)) == method
    said = unopened(unopened_by(version, "/srv/a.usd"), "/srv/a.usd")
    assert bool(said) == bool(says)
    assert says in said
    assert unopened_by(version, "") is None
