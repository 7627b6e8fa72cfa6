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
    return [
        method
        for method in methods()
        if method.containing_service.full_name.startswith(("footlights.v1.", "footlights.ovc."))
        and method.containing_service.name not in ("AgentService", "ReplicaService")
    ]


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
