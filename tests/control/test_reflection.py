"""Tools find the API without its files, whichever version of reflection they speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from footlights.v1 import node_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from footlights.control.reflection import ALPHA, V1
from tests.control.test_grpc_listener import SERVICE, listening


async def ask(channel: grpc.aio.Channel, version: str, **question: str) -> Any:
    call: Any = channel.stream_stream(
        f"/{version}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()
    await call.write(reflection_pb2.ServerReflectionRequest(**question))
    await call.done_writing()
    return await call.read()


@pytest.mark.parametrize("version", ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"])
async def test_both_versions_describe_all_that_is_served(tmp_path: Path, version: str) -> None:
    """They list the same services, and have the files of each, their own included."""
    async with listening(tmp_path) as (_, channel):
        answer = await ask(channel, version, list_services="*")
        names = [service.name for service in answer.list_services_response.service]
        found = {}
        for name in names:
            answer = await ask(channel, version, file_containing_symbol=name)
            files = answer.file_descriptor_response.file_descriptor_proto
            found[name] = [FileDescriptorProto.FromString(file).name for file in files]

    assert names == sorted([SERVICE, "grpc.health.v1.Health", ALPHA, V1])
    assert node_pb2.DESCRIPTOR.name in found[SERVICE]
    assert all(found.values())
