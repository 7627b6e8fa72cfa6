"""Which bindings are deprecated, and what replaces them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import FileOptions, MethodOptions

from footlights.http.v1 import annotations_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.gateway.routing.binding import Binding


@dataclass(frozen=True, slots=True)
class Deprecation:
    """The life of a deprecated binding; dates in ISO 8601, empty where the file has none."""

    since: str
    sunset: str
    successor: Binding | None
    """The RPC's first binding that is not deprecated."""

    @property
    def text(self) -> str:
        """The same for a person."""
        said = f"Deprecated since {self.since}" if self.since else "Deprecated"
        if self.sunset:
            said += f", may be missing from {self.sunset}"
        if self.successor is not None:
            said += f": use `{self.successor.http_method} {self.successor.template.text}`"
        return f"{said}."


def deprecation(binding: Binding, bindings: Sequence[Binding]) -> Deprecation | None:
    """The deprecation of a binding; None where it is not deprecated."""
    if not _is_deprecated(binding):
        return None
    options = FileOptions.FromString(binding.rpc.containing_service.file.GetOptions().SerializeToString())
    dates = options.Extensions[annotations_pb2.deprecation]
    others = (other for other in bindings if other.rpc is binding.rpc and not _is_deprecated(other))
    return Deprecation(dates.since, dates.sunset, next(others, None))


def _is_deprecated(binding: Binding) -> bool:
    # Through bytes: descriptors of another pool carry options of that pool's classes.
    options = MethodOptions.FromString(binding.rpc.GetOptions().SerializeToString())
    return options.deprecated or binding.template.text in options.Extensions[annotations_pb2.deprecated_paths]
