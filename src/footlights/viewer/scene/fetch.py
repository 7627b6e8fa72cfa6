"""Where a stage is: a path, a `file://` or an `http(s)://` address.

A stage from the web is downloaded first, as one file of bounded size: a `.usdz` carries its assets with it; a
stage that references others by relative paths does not find them. `omniverse://` needs NVIDIA's client library,
which is not part of this application.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from footlights.viewer.failure import FailureReason, ViewerFailure
from footlights.viewer.scene.roots import StageRoots

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("footlights.viewer.scene.stage")

MAX_BYTES = 512 * 1024 * 1024
CONNECT_TIMEOUT = 10.0  # seconds, also between two chunks
DOWNLOAD_TIMEOUT = 120.0  # seconds in all

SUFFIXES = {b"PXR-USDC": ".usdc", b"#usda": ".usda", b"PK\x03\x04": ".usdz"}


@dataclass(frozen=True, slots=True)
class StageSource:
    """A stage on this machine's disk."""

    path: Path
    name: str
    roots: StageRoots = field(default_factory=StageRoots)
    """Where what it pulls in may lie."""


@contextlib.contextmanager
def local_stage(uri: str, roots: StageRoots | None = None) -> Iterator[StageSource]:
    """Make a stage's file available; what was downloaded is kept until the block ends.

    The empty address is the first sample stage. Raises ViewerFailure: STAGE_NOT_FOUND, STAGE_UNREADABLE,
    STAGE_TOO_LARGE, UNSUPPORTED_SCHEME.
    """
    roots = roots or StageRoots()
    if not uri:
        from footlights.viewer.stages import DEFAULT, sample_path

        yield replace(_existing(sample_path(DEFAULT), DEFAULT), roots=roots)
        return
    parts = urlsplit(uri)
    match parts.scheme.lower():
        case "http" | "https":
            with tempfile.TemporaryDirectory(prefix="footlights-stage-") as folder:
                found = _download(uri, Path(folder), Path(unquote(parts.path)).stem or parts.netloc, roots)
                yield replace(found, roots=roots.including(Path(folder)))
        case "file":
            if parts.netloc not in ("", "localhost"):
                raise ViewerFailure(
                    FailureReason.STAGE_NOT_FOUND,
                    f"{uri} is on another machine ({parts.netloc}): use file:///path or http",
                )
            path = Path(unquote(parts.path))
            yield _allowed(_existing(path, path.stem), roots)
        case "":
            yield _allowed(_existing(Path(uri).expanduser(), Path(uri).stem), roots)
        case scheme:
            raise ViewerFailure(
                FailureReason.UNSUPPORTED_SCHEME,
                f"cannot open {uri.partition('?')[0]}: {scheme}:// is not supported; use a path, file:// or http(s)://",
            )


def _existing(path: Path, name: str) -> StageSource:
    if not path.exists():
        raise ViewerFailure(FailureReason.STAGE_NOT_FOUND, f"there is no stage at {path}: check usd_stage_uri")
    if not path.is_file():
        raise ViewerFailure(
            FailureReason.STAGE_UNREADABLE, f"{path} is not a file: usd_stage_uri must name a .usd file"
        )
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ViewerFailure(FailureReason.STAGE_UNREADABLE, f"cannot read {path}: {error.strerror}") from error
    return StageSource(path, name)


def _allowed(source: StageSource, roots: StageRoots) -> StageSource:
    """Return a stage of this machine with its roots; only here is it seen where symbolic links lead."""
    if not roots.admits_file(source.path):
        raise ViewerFailure(
            FailureReason.STAGE_UNREADABLE, f"{source.path} leads to a file that is not below a root that is allowed"
        )
    return replace(source, roots=roots)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to places that are allowed: others may lead into the network of the node."""

    def __init__(self, roots: StageRoots) -> None:
        self._roots = roots

    def redirect_request(self, *arguments: Any) -> urllib.request.Request | None:
        """Return the next request. Raises ViewerFailure where it leads outside."""
        target: str = arguments[-1]
        if not self._roots.admits_url(target):
            shown = target.partition("?")[0]
            raise ViewerFailure(
                FailureReason.STAGE_UNREADABLE, f"the stage is redirected to {shown}: no root that is allowed has it"
            )
        return super().redirect_request(*arguments)


def _download(uri: str, folder: Path, name: str, roots: StageRoots) -> StageSource:
    shown = uri.partition("?")[0]  # a query may carry a signature
    target = folder / "stage"
    began = time.monotonic()
    try:
        opener = urllib.request.build_opener(_Redirects(roots))
        request = urllib.request.Request(uri, headers={"User-Agent": "footlights-viewer"})  # noqa: S310
        with opener.open(request, timeout=CONNECT_TIMEOUT) as response, target.open("wb") as file:
            size = 0
            while chunk := response.read(1 << 18):
                size += len(chunk)
                if size > MAX_BYTES:
                    raise ViewerFailure(
                        FailureReason.STAGE_TOO_LARGE,
                        f"{shown} is larger than {MAX_BYTES >> 20} MiB: copy it to the node",
                    )
                if time.monotonic() - began > DOWNLOAD_TIMEOUT:
                    raise ViewerFailure(
                        FailureReason.STAGE_UNREADABLE, f"{shown} was not downloaded within {DOWNLOAD_TIMEOUT:.0f} s"
                    )
                file.write(chunk)
    except urllib.error.HTTPError as error:
        reason = FailureReason.STAGE_NOT_FOUND if error.code in (404, 410) else FailureReason.STAGE_UNREADABLE
        raise ViewerFailure(reason, f"{shown} answered {error.code} {error.reason}: check usd_stage_uri") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        raise ViewerFailure(FailureReason.STAGE_NOT_FOUND, f"cannot download {shown}: {cause}") from error
    log.info("downloaded %s: %d bytes in %.1f s", shown, size, time.monotonic() - began)
    with target.open("rb") as file:
        head = file.read(8)
    suffix = next((s for magic, s in SUFFIXES.items() if head.startswith(magic)), None)
    if suffix is None:
        raise ViewerFailure(FailureReason.STAGE_UNREADABLE, f"{shown} is not a USD file: it begins with {head!r}")
    return StageSource(target.rename(target.with_suffix(suffix)), name)
