"""Paths that clients must stop using, and the headers of their answers that say so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import FileOptions

from footlights.http.v1 import annotations_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor import FileDescriptor

    from footlights.gateway.routing.path_template import PathTemplate

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Deprecation:
    """What the answers of a deprecated path say about it."""

    dates: tuple[Header, ...]
    """``Deprecation`` (RFC 9745) and ``Sunset`` (RFC 8594), where the file has these dates."""
    successor: PathTemplate | None
    """The RPC's first path, where it is another one."""

    def headers(self, variables: Mapping[str, str], root_path: str) -> tuple[Header, ...]:
        """Return the headers of the answer to one request.

        Args:
            variables: What the path variables matched, by field path.
            root_path: Where the gateway is mounted.
        """
        path = None if self.successor is None else self.successor.expand(variables)
        if path is None:
            return self.dates
        return (*self.dates, (b"link", f'<{root_path}{path}>; rel="successor-version"'.encode("ascii", "replace")))


def dates_of(file: FileDescriptor) -> tuple[Header, ...]:
    """Return the headers with the dates of a file's deprecated paths; none where it has no such option.

    Raises:
        ValueError: A date that is not one.
    """
    # Through bytes: descriptors of another pool carry options of that pool's classes.
    options = FileOptions.FromString(file.GetOptions().SerializeToString())
    if not options.HasExtension(annotations_pb2.deprecation):
        return ()
    found = options.Extensions[annotations_pb2.deprecation]
    headers: list[Header] = []
    if found.since:
        headers.append((b"deprecation", b"@%d" % _midnight(found.since).timestamp()))
    if found.sunset:
        headers.append((b"sunset", format_datetime(_midnight(found.sunset), usegmt=True).encode("ascii")))
    return tuple(headers)


def _midnight(day: str) -> datetime:
    return datetime.combine(date.fromisoformat(day), time(), UTC)
