"""Which handler serves which RPC: resolved once, from the descriptors."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from google.protobuf import message_factory

from footlights.auth.roles import is_open
from footlights.control.call import idempotency_key, validate
from footlights.errors import Reason, Unimplemented
from footlights.protocol.bounds import MAX_MESSAGE_BYTES
from footlights.v1 import permission_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

    from footlights.auth.roles import Caller
    from footlights.control.call.idempotency_key import TakeKey


MAX_REQUEST_BYTES = 4 << 20
"""The greatest request of a client: that of a REST client may have a quarter of it, and protobuf is shorter."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service and the object that has its handlers.

    A handler is the method of the RPC's name in snake case. Its kind follows from the descriptor:

    ===================  =======================================================================
    one response         ``async def create_session(self, request, call) -> Session``
    server stream        ``def watch_session(self, request, call) -> AsyncGenerator[Session, None]``
    client stream        ``async def upload(self, stream, call) -> Response``
    bidirectional        ``async def link(self, stream, call) -> None``
    ===================  =======================================================================

    ``call`` is a `Call`, ``stream`` a `MessageStream`. A handler fails with an `errors.Error`.
    """

    descriptor: ServiceDescriptor
    handlers: object
    strict: bool = True
    """Whether requests with unknown fields or enum values are refused; not where the client may be a newer server."""
    former_name: str = ""
    """The name under which the release before calls it, which is served too; empty where it has none."""
    anonymous: Caller | None = None
    """As whom its RPCs are called by who shows nothing; None: only with credentials."""


@dataclass(frozen=True, slots=True)
class Rpc:
    """An RPC with what a call of it needs."""

    path: str
    """``/package.Service/Method``."""
    service: str
    name: str
    client_streaming: bool
    server_streaming: bool
    deprecated: bool
    permission: str
    handler: Callable[..., Any]
    check: Callable[[Message], None]
    """Fills the defaults of a request and refuses what breaks a rule."""
    take_key: TakeKey
    """Takes a call's ``Idempotency-Key``."""
    request_type: type[Message]
    response_type: type[Message]
    max_bytes: int
    """The greatest request that is taken over gRPC."""
    anonymous: Caller | None
    """As whom it is called by who shows nothing."""


class Registry:
    """The RPCs that this process serves, by path."""

    def __init__(self, services: Sequence[Service], elsewhere: Mapping[str, str] | None = None) -> None:
        """Resolve every RPC of the services; ``elsewhere`` has the role that serves each of the other services.

        Raises LookupError where an RPC has no handler, or names no permission.
        """
        self.rpcs = {rpc.path: rpc for service in services for rpc in _resolve(service)}
        self.services = tuple(service.descriptor.full_name for service in services)
        self.elsewhere = dict(elsewhere or {})


def role_not_served(role: str) -> Unimplemented:
    """Return the error of a request for a role that this process does not have."""
    return Unimplemented(
        f"This process does not have the role {role}: send the request to one that has it.",
        reason=Reason.ROLE_NOT_SERVED,
        metadata={"role": role},
    )


def not_served_here(service: str, role: str, option: str) -> Unimplemented:
    """Return the error of a call of a service that another listener of this process serves, that of ``option``."""
    return Unimplemented(
        f"This address does not serve {service}: call the one that the server's --{option} names.",
        reason=Reason.ROLE_NOT_SERVED,
        metadata={"role": role},
    )


def handler_name(rpc_name: str) -> str:
    """Return the name of an RPC's handler: its own name in snake case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", rpc_name).lower()


def _resolve(service: Service) -> list[Rpc]:
    present = [_rpc(method, service) for method in service.descriptor.methods]
    name = service.former_name
    former = [replace(rpc, service=name, path=f"/{name}/{rpc.name}") for rpc in present] if name else []
    return present + former


def _rpc(method: MethodDescriptor, service: Service) -> Rpc:
    name, full_name, handlers = handler_name(method.name), service.descriptor.full_name, service.handlers
    handler = getattr(handlers, name, None)
    if handler is None:
        raise LookupError(f"{type(handlers).__name__} lacks the handler {name} of {method.full_name}.")
    permission = method.GetOptions().Extensions[permission_pb2.permission]
    if not permission:
        raise LookupError(f"{method.full_name} lacks the option footlights.v1.permission.")
    return Rpc(
        path=f"/{full_name}/{method.name}",
        service=full_name,
        name=method.name,
        client_streaming=bool(method.client_streaming),
        server_streaming=bool(method.server_streaming),
        deprecated=method.GetOptions().deprecated,
        permission=permission,
        handler=handler,
        check=validate.checker(method.input_type, strict=service.strict),
        take_key=idempotency_key.taker(method),
        request_type=message_factory.GetMessageClass(method.input_type),
        response_type=message_factory.GetMessageClass(method.output_type),
        max_bytes=MAX_REQUEST_BYTES if service.strict or is_open(permission) else MAX_MESSAGE_BYTES,
        anonymous=service.anonymous,
    )
