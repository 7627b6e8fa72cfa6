"""The update mask that a PATCH implies: the leaf paths of its body, without what only answers have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from footlights.gateway.decode.names import names, own_name
from footlights.gateway.errors import INVALID_ARGUMENT, GatewayError
from footlights.gateway.routing.binding import Binding, walk
from footlights.gateway.routing.field_options import is_output_only

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor

_DYNAMIC = ("google.protobuf.Struct", "google.protobuf.Value")


def mask_field(binding: Binding) -> FieldDescriptor | None:
    """The request's field mask, where the binding is a PATCH of one message field and there is exactly one mask."""
    if binding.http_method != "PATCH" or binding.body in ("", "*"):
        return None
    body = walk(binding.rpc.input_type, binding.body)[0]
    masks = [
        field
        for field in binding.rpc.input_type.fields
        if field.message_type is not None and field.message_type.full_name == "google.protobuf.FieldMask"
    ]
    return masks[0] if len(masks) == 1 and body.message_type is not None and not body.is_repeated else None


def implied_paths(value: object, message: Descriptor) -> list[str]:
    """Sorted leaf paths, in proto names, of a JSON value that is a message; repeated and map fields end a path.

    Members that are OUTPUT_ONLY are left out (AIP-203): a resource can be read, changed and sent back as it is.

    Raises:
        GatewayError: a member that the message does not have.
    """
    paths: list[str] = []
    if isinstance(value, dict):
        _collect(value, message, "", paths)
    return sorted(paths)


def _collect(node: dict[str, Any], message: Descriptor, prefix: str, paths: list[str]) -> None:
    for name, value in node.items():
        field = names(message).get(name)
        if field is None:
            known = ", ".join(sorted({own_name(known) for known in message.fields}))
            raise GatewayError(
                INVALID_ARGUMENT,
                f"{prefix}{name} is not a known member; choose from {known}.",
                field=prefix + name,
                reason="UNKNOWN_FIELD",
            )
        if is_output_only(field):
            continue
        path = prefix + field.name
        inner = field.message_type
        if inner is not None and not field.is_repeated and inner.full_name in _DYNAMIC:
            _collect_blindly(value, path, paths)
        elif inner is None or field.is_repeated or not isinstance(value, dict) or not value or "@type" in value:
            paths.append(path)
        else:
            _collect(value, inner, path + ".", paths)


def _collect_blindly(node: Any, path: str, paths: list[str]) -> None:
    if isinstance(node, dict) and node:
        for name, value in node.items():
            _collect_blindly(value, f"{path}.{name}", paths)
    else:
        paths.append(path)
