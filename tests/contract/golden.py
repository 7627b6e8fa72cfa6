"""Facts of the contract: fields, routes, permissions, defaults, bounds, roles, reasons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from footlights.http.v1 import annotations_pb2 as rest
from google.api import annotations_pb2
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, MethodOptions
from google.protobuf.message import Message

from footlights.auth.roles import PERMISSIONS
from tests.contract import descriptors

HEAD = """\
# The contract, with all that `buf breaking` cannot see of it, one fact a line. `make contract` writes this file: a
# change of it is a change of the API, to be reviewed against docs/api-versions.md.
"""
_TYPES = FieldDescriptorProto.Type.DESCRIPTOR.values_by_number
_VERBS = ("get", "put", "post", "delete", "patch")
_ELSEWHERE = {"http", "deprecated_paths", "idempotency_level", "go_package"}
"""Options that have lines of their own, or that `buf breaking` sees."""


def text(files: Iterable[FileDescriptor]) -> str:
    """Return the golden file of a contract."""
    lines = {f"role {role.value}: {permission}" for role, held in PERMISSIONS.items() for permission in held}
    for file in files:
        lines.update(_file(file))
    return HEAD + "".join(f"{line}\n" for line in sorted(lines))


def bindings(method: MethodDescriptor) -> Iterator[tuple[str, str, Message, bool]]:
    """Yield verb, path, rule, and whether it is deprecated, of every HTTP binding of an RPC."""
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return
    first = options.Extensions[annotations_pb2.http]
    old = options.Extensions[rest.deprecated_paths]
    for rule in (first, *first.additional_bindings):
        verb = rule.WhichOneof("pattern")
        path = getattr(rule, verb) if verb in _VERBS else rule.custom.path
        yield verb.upper() if verb in _VERBS else rule.custom.kind, path, rule, options.deprecated or path in old


def _file(file: FileDescriptor) -> Iterator[str]:
    yield from _options(f"file {file.name}", file.GetOptions())
    for extension in file.extensions_by_name.values():
        assert extension.containing_type is not None
        yield f"extension {extension.full_name}: {extension.number} of {extension.containing_type.full_name}"
    for service in file.services_by_name.values():
        for method in service.methods:
            yield from _rpc(method)
    for message in descriptors.messages(file):
        for field in message.fields:
            yield from _field(field)
    for enum in descriptors.enums(file):
        for value in enum.values:
            yield from _options(f"value {enum.full_name}.{value.name}", value.GetOptions())


def _rpc(method: MethodDescriptor) -> Iterator[str]:
    name, options = f"rpc {method.full_name}", method.GetOptions()
    yield f"{name}: idempotency {MethodOptions.IdempotencyLevel.Name(options.idempotency_level)}"
    for verb, path, rule, deprecated in bindings(method):
        extras = [f" {part}={getattr(rule, part)}" for part in ("body", "response_body") if getattr(rule, part)]
        yield f"{name}: http {verb} {path}{''.join(extras)}{' deprecated' if deprecated else ''}"
    yield from _options(name, options)


def _field(field: FieldDescriptor) -> Iterator[str]:
    name = f"field {field.full_name}"
    yield f"{name}: {field.number} {_type(field)}"
    first, *others = field.name.split("_")
    if field.json_name != first + "".join(part[:1].upper() + part[1:] for part in others):
        yield f"{name}: json_name {field.json_name}"
    yield from _options(name, field.GetOptions())


def _type(field: FieldDescriptor) -> str:
    """Cardinality and type. `buf breaking` sees changes of them, but one that is meant excepts a whole file."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return f"map<{', '.join(_type(part) for part in field.message_type.fields)}>"
    kind = field.message_type or field.enum_type
    name = kind.full_name if kind else _TYPES[field.type].name.removeprefix("TYPE_").lower()
    if field.is_repeated:
        return f"repeated {name}"
    return f"optional {name}" if field.has_presence and field.message_type is None else name


def _options(name: str, options: Message) -> Iterator[str]:
    for field, value in options.ListFields():
        if field.name not in _ELSEWHERE and not field.name.startswith("java_"):
            yield from (f"{name}: {fact}" for fact in _facts(field.name, field, value))


def _facts(path: str, field: FieldDescriptor, value: Any) -> Iterator[str]:
    for item in value if field.is_repeated else [value]:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner, content in item.ListFields():
                if inner.name != "example":
                    yield from _facts(f"{path}.{inner.name}", inner, content)
        elif field.type == FieldDescriptor.TYPE_ENUM:
            assert field.enum_type is not None
            yield f"{path} {field.enum_type.values_by_number[item].name}"
        else:
            yield f"{path} {json.dumps(item)}"
