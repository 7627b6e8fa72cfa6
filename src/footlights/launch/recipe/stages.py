"""Which stage a session may open: below one of the version's roots, compared by parts and not by characters. Pure.

What a server below an allowed prefix leads to is the operator's decision. The node's files are not seen here: what a
stage pulls in, and where symbolic links lead, the application must check (``viewer/scene/roots``), or its launcher.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from footlights.errors import InvalidArgument, Reason
from footlights.launch.launchers import traits_of
from footlights.launch.recipe import read_again
from footlights.launch.recipe.template import parse
from footlights.launch.recipe.whole_command import whole_command
from footlights.protocol import enums
from footlights.v1.application_pb2 import StageDelivery, Version

if TYPE_CHECKING:
    from collections.abc import Iterator

STAGE_FIELD = "application_arguments.usd_stage_uri"
MAX_CHARACTERS = 4096
REDACTED_QUERY = "[redacted]"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\\\u2028\u2029]")
_PORTS = {"http": 80, "https": 443}


class StageError(ValueError):
    """A stage's address is malformed; the message says how, with the value and the fix."""


@dataclass(frozen=True, slots=True)
class StageAddress:
    """An address in parts that can be compared."""

    scheme: str
    """Lower case; empty for a path of the node."""
    host: str
    port: int | None
    segments: tuple[str, ...]
    """Its path, percent-decoded once; none is ``.`` or ``..``."""
    query: str
    text: str

    def below(self, root: StageAddress) -> bool:
        """Whether this lies in ``root`` or is it."""
        own = (self.scheme, self.host, self.port)
        return own == (root.scheme, root.host, root.port) and self.segments[: len(root.segments)] == root.segments


def resolve_stage(version: Version, uri: str) -> str:
    """Say which stage a session opens; empty where neither it nor its version gives one. Raises InvalidArgument.

    ``uri`` is an absolute path, a ``file://`` URL (taken as its path), or a URL; empty opens the default stage.
    """
    default = version.default_usd_stage_uri
    if not uri:
        return parse_stage(default).text if default else ""
    try:
        stage = parse_stage(uri)
    except StageError as error:
        raise InvalidArgument(STAGE_FIELD, str(error), reason=Reason.STAGE_MALFORMED) from None
    if default and stage == parse_stage(default):
        return stage.text
    if any(stage.below(parse_root(root)) for root in version.allowed_stage_roots):
        # A signature is in no command of a version that takes it from its session file.
        plain = stage.text.partition("?")[0] if from_session_file(version) else stage.text
        read_again.check(version, read_again.STAGE_NAME, plain)
        return stage.text
    allowed = ", ".join(version.allowed_stage_roots) or "none but the default stage"
    raise InvalidArgument(
        STAGE_FIELD,
        f"{without_query(uri)!r} is not below a root that this version allows: choose a stage from {allowed}.",
        reason=Reason.STAGE_NOT_ALLOWED,
        metadata={"usd_stage_uri": without_query(uri), "allowed_stage_roots": allowed},
    )


def delivery_of(version: Version) -> StageDelivery.Method.ValueType:
    """Say how a version is given its stage; never METHOD_UNSPECIFIED."""
    if version.stage_delivery.method:
        return version.stage_delivery.method
    if traits_of(version).answers is not None or any("usd_stage_uri" in parse(text).names for text in _texts(version)):
        return StageDelivery.COMMAND
    return StageDelivery.SESSION_FILE if version.stage_from_session_file else StageDelivery.NONE


def from_session_file(version: Version) -> bool:
    """Say whether a query, which may be a signature, is kept from a version's command line."""
    return version.stage_from_session_file or delivery_of(version) != StageDelivery.COMMAND


def unopened_by(version: Version, uri: str) -> str | None:
    """Return how a version is given a stage that its application does not open by itself; None where it does."""
    method = delivery_of(version)
    return (
        enums.name_of(StageDelivery.Method, method)
        if uri and method in (StageDelivery.MESSAGE, StageDelivery.NONE)
        else None
    )


def unopened(method: str | None, uri: str) -> str:
    """Say why a stage is not opened by itself, and what to do; empty where it is. ``method``: of ``unopened_by``."""
    if method == "NONE":
        return f"{uri} is not opened: the version takes no stage. Say in its stage_delivery how it is given one."
    if method == "MESSAGE":
        return f"{uri} is opened once a client asks for it: send openStageRequest with its url on the data channel."
    return ""


def _texts(version: Version) -> Iterator[str]:
    yield from (token.text for token in whole_command(version))
    yield from version.environment.values()


def without_query(uri: str) -> str:
    """Return an address as it may be shown: a query may be a signature, which lets in whoever has it."""
    # One slash begins a path of the node, which has no query; a malformed URL may begin with anything else.
    path = uri.startswith("/") and not uri.startswith("//")
    return uri if path or "?" not in uri else f"{uri.partition('?')[0]}?{REDACTED_QUERY}"


def all_roots(version: Version) -> list[str]:
    """Return below what everything must lie that a stage of a version pulls in.

    These are its roots, the directory of its default stage, and that stage itself, which may be a symbolic link.
    """
    roots = [parse_root(root).text for root in version.allowed_stage_roots]
    if version.default_usd_stage_uri:
        default = parse_stage(version.default_usd_stage_uri).text
        plain = default.partition("?")[0]
        roots += [plain.rpartition("/")[0] or "/", plain]
    return roots


def parse_stage(uri: str) -> StageAddress:
    """Parse one address. Raises StageError, also for ``..``, an encoded separator, credentials or a fragment."""
    if len(uri) > MAX_CHARACTERS:
        raise StageError(f"it is {len(uri)} characters long: at most {MAX_CHARACTERS} are allowed.")
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return _path(uri, uri, encoded=False)
    shown = without_query(uri)
    _refuse_unprintable(uri)
    if not uri[scheme.end() :].startswith("//"):
        raise StageError(f"{shown!r} is neither an absolute path nor a URL: write /path or scheme://host/path.")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise StageError(f"{shown!r} is not a URL: {error}.") from None
    if parts.fragment or uri.endswith("#"):
        raise StageError(f"{shown!r} has a fragment: remove what follows '#'.")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise StageError("the URL holds credentials: give them in nucleus_connection_config.")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise StageError(f"{shown!r} names a host: write file:///path or the path alone.")
        if parts.query:
            raise StageError(f"{shown!r} has a query: a file has none.")
        return _path(shown, parts.path, encoded=True)
    host = (parts.netloc.rpartition(":")[0] if port is not None else parts.netloc.rstrip(":")).lower().rstrip(".")
    if _HOST.fullmatch(host) is None:
        raise StageError(f"{shown!r} has no valid host: write scheme://host/path, the host in ASCII.")
    segments = _segments(shown, parts.path or "/", encoded=True)
    authority = host if port is None else f"{host}:{port}"
    text = f"{parts.scheme}://{authority}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")
    return StageAddress(
        scheme=parts.scheme,
        host=host,
        port=_PORTS.get(parts.scheme) if port is None else port,
        segments=segments,
        query=parts.query,
        text=text,
    )


def parse_root(root: str) -> StageAddress:
    """Parse an allowed root: an absolute directory or a URL prefix. Raises StageError."""
    stage = parse_stage(root)
    if stage.query or "?" in root:
        raise StageError(f"{root!r} has a query: a root is a directory or a URL prefix.")
    return replace(stage, segments=tuple(part for part in stage.segments if part))


def _path(uri: str, path: str, *, encoded: bool) -> StageAddress:
    if not path.startswith("/"):
        raise StageError(
            f"{without_query(uri)!r} is neither an absolute path nor a URL: write /path or scheme://host/path."
        )
    segments = tuple(part for part in _segments(uri, path, encoded=encoded) if part)
    text = posixpath.join("/", *segments)
    return StageAddress(scheme="", host="", port=None, segments=segments, query="", text=text)


def _segments(uri: str, path: str, *, encoded: bool) -> tuple[str, ...]:
    """Split a path; what decodes to a separator or to a step up is refused, not resolved."""
    if encoded and re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise StageError(f"{uri!r} has a '%' that encodes nothing: write %25 in a URL for a percent sign.")
    segments = []
    for raw in path.removeprefix("/").split("/"):
        segment = unquote(raw, errors="replace") if encoded else raw
        if segment in (".", ".."):
            raise StageError(f"{uri!r} holds the step {raw!r}: write the path without '.' and '..'.")
        if "/" in segment or (encoded and "%" in segment):
            raise StageError(f"{uri!r} hides a separator or an encoding in {raw!r}: write the path plainly.")
        _refuse_unprintable(segment, space=True)
        segments.append(segment)
    return tuple(segments)


def _refuse_unprintable(text: str, *, space: bool = False) -> None:
    found = _UNPRINTABLE.search(text.replace(" ", "") if space else text)
    if found is not None:
        raise StageError(f"{without_query(text)!r} holds the character {found.group()!r}: remove it.")
