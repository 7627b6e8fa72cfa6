"""The contract's descriptors: every file of ours in the committed image, imported."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor, MethodDescriptor

IMAGE = Path(__file__).parents[2] / "gen" / "footlights" / "v1" / "footlights.binpb"


def image() -> list[descriptor_pb2.FileDescriptorProto]:
    """Our files, with their comments."""
    found = descriptor_pb2.FileDescriptorSet.FromString(IMAGE.read_bytes())
    return [file for file in found.file if file.name.startswith("footlights/")]


def files() -> list[FileDescriptor]:
    """Our files, with the extensions of their options registered."""
    names = [f"{file.name.removesuffix('.proto').replace('/', '.')}_pb2" for file in image()]
    return [importlib.import_module(name).DESCRIPTOR for name in names]


def methods() -> list[MethodDescriptor]:
    """All RPCs."""
    return [method for file in files() for service in file.services_by_name.values() for method in service.methods]


def public_methods() -> list[MethodDescriptor]:
    """The RPCs of people and programs: not those of agents and replicas."""
    public = ("footlights.v1.", "footlights.ovc.")
    return [method for method in methods() if method.containing_service.full_name.startswith(public)]


def messages(file: FileDescriptor) -> Iterator[Descriptor]:
    """All messages of a file, without the entries of maps."""
    pending = list(file.message_types_by_name.values())
    while pending:
        message = pending.pop()
        if not message.GetOptions().map_entry:
            yield message
        pending += message.nested_types


def enums(file: FileDescriptor) -> Iterator[EnumDescriptor]:
    """All enums of a file."""
    yield from file.enum_types_by_name.values()
    for message in messages(file):
        yield from message.enum_types


def comments() -> dict[str, str]:
    """The comment of each RPC, message, field, enum and value, by its full name."""
    found = {}
    for file in image():
        texts = {tuple(location.path): location.leading_comments for location in file.source_code_info.location}
        found.update({f"{file.package}.{name}": texts.get(path, "") for name, path in elements(file)})
    return found


def elements(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every service, RPC, message, field, enum, value and extension, with its path (descriptor.proto, Location)."""
    for s, service in enumerate(file.service):
        yield service.name, (6, s)
        yield from ((f"{service.name}.{method.name}", (6, s, 2, m)) for m, method in enumerate(service.method))
    for e, extension in enumerate(file.extension):
        yield extension.name, (7, e)
    for e, enum in enumerate(file.enum_type):
        yield from _enum(enum, (5, e), "")
    for m, message in enumerate(file.message_type):
        yield from _message(message, (4, m), "")


def _message(
    message: descriptor_pb2.DescriptorProto, path: tuple[int, ...], above: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    if message.options.map_entry:
        return
    name = f"{above}{message.name}"
    yield name, path
    yield from ((f"{name}.{field.name}", (*path, 2, f)) for f, field in enumerate(message.field))
    yield from ((f"{name}.{oneof.name}", (*path, 8, o)) for o, oneof in enumerate(message.oneof_decl)
                if not oneof.name.startswith("_"))  # fmt: skip
    for n, nested in enumerate(message.nested_type):
        yield from _message(nested, (*path, 3, n), f"{name}.")
    for e, enum in enumerate(message.enum_type):
        yield from _enum(enum, (*path, 4, e), f"{name}.")


def _enum(
    enum: descriptor_pb2.EnumDescriptorProto, path: tuple[int, ...], above: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{above}{enum.name}", path
    yield from ((f"{above}{enum.name}.{value.name}", (*path, 2, v)) for v, value in enumerate(enum.value))
