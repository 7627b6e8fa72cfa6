"""The names under which the release before knows the services that left the public package.

For one release they are served under both names, and called by the former one where the other side does not know the
present one. The messages have equal bytes. Delete this module at the next release, and what imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from grpc import aio

NAMES: Final = {
    "footlights.agent.v1.AgentService": "footlights.v1.AgentService",
    "footlights.replica.v1.ReplicaService": "footlights.v1.ReplicaService",
}
"""By the present name."""


class FormerNames:
    """A gRPC channel for a generated stub, on which methods are called by their former names."""

    def __init__(self, channel: aio.Channel) -> None:
        self.unary_unary = _renamed(channel.unary_unary)
        self.unary_stream = _renamed(channel.unary_stream)
        self.stream_unary = _renamed(channel.stream_unary)
        self.stream_stream = _renamed(channel.stream_stream)


def _renamed(make: Any) -> Any:
    def call(path: str, *arguments: Any, **options: Any) -> Any:
        _, service, method = path.split("/")
        return make(f"/{NAMES[service]}/{method}", *arguments, **options)

    return call
