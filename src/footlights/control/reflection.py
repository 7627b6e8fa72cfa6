"""gRPC reflection as v1 and v1alpha: two names of one protocol with equal messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence

ALPHA: Final[str] = reflection.SERVICE_NAME
V1: Final = ALPHA.replace("v1alpha", "v1")
"""What newer tools ask for; grpcio-reflection has only the other one."""
NAMES: Final = (ALPHA, V1)
METHOD: Final = "ServerReflectionInfo"
REQUEST: Final = reflection_pb2.ServerReflectionRequest
RESPONSE: Final = reflection_pb2.ServerReflectionResponse


def describe(services: Sequence[str]) -> Callable[[AsyncIterable[Any]], AsyncIterator[Any]]:
    """Return what answers questions about services, and reflection itself: ``METHOD`` of either name."""
    _describe_v1()
    servicer = reflection.aio.ReflectionServicer((*services, *NAMES))

    def answer(questions: AsyncIterable[Any]) -> AsyncIterator[Any]:
        answers: AsyncIterator[Any] = servicer.ServerReflectionInfo(questions, None)
        return answers

    return answer


def _describe_v1() -> None:
    """Make the descriptors of v1 known: those of v1alpha under the other name."""
    alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    text = text_format.MessageToString(alpha).replace("v1alpha", "v1")
    descriptor_pool.Default().Add(text_format.Parse(text, descriptor_pb2.FileDescriptorProto()))
