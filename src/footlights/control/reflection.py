"""gRPC reflection as v1 and v1alpha: two names of one protocol with equal messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHA: Final[str] = reflection.SERVICE_NAME
V1: Final = ALPHA.replace("v1alpha", "v1")
"""What newer tools ask for; grpcio-reflection has only the other one."""


def add(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Let ``server`` describe services, and reflection itself."""
    _describe_v1()
    servicer = reflection.aio.ReflectionServicer((*services, ALPHA, V1))
    handlers = {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers) for name in (ALPHA, V1)])


def _describe_v1() -> None:
    """Make the descriptors of v1 known: those of v1alpha under the other name."""
    alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    text = text_format.MessageToString(alpha).replace("v1alpha", "v1")
    descriptor_pool.Default().Add(text_format.Parse(text, descriptor_pb2.FileDescriptorProto()))
