"""Descriptors of services that are not imported: from a descriptor set, or from a server by reflection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio
from google.api import annotations_pb2, field_behavior_pb2, httpbody_pb2
from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)  # fmt: skip
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from google.protobuf.descriptor import ServiceDescriptor

# Imported so that a set built without --include_imports finds them.
_WELL_KNOWN = (
    annotations_pb2, field_behavior_pb2, httpbody_pb2, any_pb2, api_pb2, duration_pb2, empty_pb2, field_mask_pb2,
    source_context_pb2, struct_pb2, timestamp_pb2, type_pb2, wrappers_pb2,
)  # fmt: skip
_QUIET = ("grpc.reflection.", "grpc.health.")


class DescriptorError(ValueError):
    """Descriptors that are missing or do not fit together."""


def from_set(data: bytes, names: Sequence[str] = ()) -> list[ServiceDescriptor]:
    """The services of a FileDescriptorSet, in its order, or those named.

    Raises:
        DescriptorError: the data is no descriptor set, an imported file is missing, or a named service is.
    """
    try:
        files = FileDescriptorSet.FromString(data).file
    except DecodeError as error:
        raise DescriptorError(f"not a descriptor set: {error}") from None
    return _services(files, names)


async def from_server(
    channel: grpc.aio.Channel, names: Sequence[str] = (), *, timeout: float = 10
) -> list[ServiceDescriptor]:
    """The services that a server lists by reflection (grpc.reflection.v1alpha), or those named.

    Raises:
        DescriptorError: a file or a named service is missing.
        grpc.aio.AioRpcError: the server cannot be reached or has no reflection.
    """
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=timeout)

    async def ask(**question: str) -> Any:
        await call.write(reflection_pb2.ServerReflectionRequest(**question))
        answer = await call.read()
        if answer is grpc.aio.EOF:
            raise DescriptorError("the server ended the reflection stream early")
        if answer.HasField("error_response"):
            raise DescriptorError(f"reflection of {question}: {answer.error_response.error_message}")
        return answer

    if not names:
        listed = (await ask(list_services="*")).list_services_response.service
        names = [service.name for service in listed if not service.name.startswith(_QUIET)]
    files: dict[str, FileDescriptorProto] = {}

    async def take(answer: Any) -> None:
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(data)
            files.setdefault(file.name, file)

    for name in names:
        await take(await ask(file_containing_symbol=name))
    while missing := {d for file in files.values() for d in file.dependency} - set(files):
        for name in sorted(missing):
            await take(await ask(file_by_filename=name))
            if name not in files:
                raise DescriptorError(f"the server does not have {name!r}, which another file imports")
    await call.done_writing()
    return _services(files.values(), names)


def _services(files: Iterable[FileDescriptorProto], names: Sequence[str]) -> list[ServiceDescriptor]:
    by_name = {file.name: file for file in files}
    pool = DescriptorPool()
    added: set[str] = set()
    for name in by_name:
        _add(pool, name, by_name, added)
    found = [
        pool.FindServiceByName(f"{file.package}.{service.name}" if file.package else service.name)
        for file in by_name.values()
        for service in file.service
    ]
    if not names:
        return found
    services = {service.full_name: service for service in found}
    for name in names:
        if name not in services:
            raise DescriptorError(f"unknown service {name!r}; choose from {', '.join(services) or 'none'}")
    return [services[name] for name in names]


def _add(pool: DescriptorPool, name: str, files: Mapping[str, FileDescriptorProto], added: set[str]) -> None:
    """Add a file after the files that it imports; one that a set lacks is taken from the default pool."""
    if name in added:
        return
    added.add(name)
    file = files.get(name)
    if file is None:
        try:
            file = FileDescriptorProto.FromString(descriptor_pool.Default().FindFileByName(name).serialized_pb)
        except KeyError:
            raise DescriptorError(f"{name!r} is imported but missing; build the set with --include_imports") from None
    for dependency in file.dependency:
        _add(pool, dependency, files, added)
    try:
        pool.AddSerializedFile(file.SerializeToString())
    except TypeError as error:
        raise DescriptorError(f"{name}: {error}") from None
