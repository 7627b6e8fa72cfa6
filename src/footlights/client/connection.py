"""One connection to a control plane: credentials, deadlines, retries, and Footlights' errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar

import grpc

from footlights.client import older_servers
from footlights.client.errors import from_rpc
from footlights.client.retries import SERVICE_CONFIG, with_request_id
from footlights.errors import Error, LocalReason, Unavailable
from footlights.protocol.dialing.proxies import channel_options, proxy_hint
from footlights.protocol.dialing.tls_hints import tls_hint

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from google.protobuf.message import Message

DEFAULT_TIMEOUT_S: Final = 30.0
"""The default deadline of a call."""

_RequestT = TypeVar("_RequestT", bound="Message")
_Response = TypeVar("_Response")

_OPTIONS: Final = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # A watch may be silent for a long time; keep-alive detects that the server is gone.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


class CallOptions(TypedDict, total=False):
    """The keyword arguments of every call."""

    timeout_s: float | None
    """Its deadline, in seconds; None and absent are ``DEFAULT_TIMEOUT_S``."""


class WriteOptions(CallOptions, total=False):
    """The keyword arguments of every write."""

    request_id: str
    """Makes a repetition by the caller the same call, for 24 hours. The client's own repetitions always are."""
    validate_only: bool
    """Check everything, change nothing, and answer as the call would."""


class ChangeOptions(WriteOptions, total=False):
    """The keyword arguments of every write that changes what exists."""

    etag: str
    """The ``etag`` that was read: the call raises ``Conflict`` if the resource has changed since. ``*``: any."""


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS settings; all parts are PEM."""

    ca: bytes | None = None
    """The authorities that sign the server's certificate; None: the system's."""
    certificate: bytes | None = None
    """The client's certificate chain, if the server requires one."""
    key: bytes | None = field(default=None, repr=False)
    """The key of ``certificate``."""


class Connection:
    """Makes calls with the token and a deadline; raises ``footlights.errors`` instead of gRPC's."""

    def __init__(self, address: str, token: str, tls: Tls | None) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        options = (*_OPTIONS, *channel_options(address))
        self._address, self._has_tls, self._reached = address, tls is not None, False
        if tls is None:
            self.channel = grpc.aio.insecure_channel(address, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
            self.channel = grpc.aio.secure_channel(address, credentials, options=options)

    async def call(
        self, method: Callable[..., Any], request: _RequestT, answer: type[_Response], options: CallOptions
    ) -> _Response:
        """Make one call. ``options``: its deadline, and members of the request. Raises ``footlights.errors.Error``."""
        timeout_s = options.get("timeout_s")
        deadline_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        wanted = with_request_id(_with_members(request, options))
        try:
            wanted = await older_servers.adapted(self.channel, wanted, timeout=deadline_s, metadata=self._metadata)
            response = await method(wanted, timeout=deadline_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as problem:
            raise await self._failed(problem) from None
        self._reached = True
        assert isinstance(response, answer)
        return response

    async def stream(
        self, method: Callable[..., Any], request: _RequestT, answer: type[_Response], timeout_s: float | None
    ) -> AsyncGenerator[_Response, None]:
        """Read a stream until it ends, the caller stops, or ``timeout_s`` (None: no deadline)."""
        call = method(request, timeout=timeout_s, metadata=self._metadata)
        try:
            async for response in call:
                assert isinstance(response, answer)
                self._reached = True
                yield response
        except grpc.aio.AioRpcError as problem:
            raise await self._failed(problem) from None
        finally:
            call.cancel()

    async def _failed(self, problem: grpc.aio.AioRpcError) -> Error:
        """Return the error of a failed call; of one that reached no server, with what TLS has to do with it."""
        error = from_rpc(problem)
        if error.reason != LocalReason.SERVER_UNREACHABLE or self._reached:
            return error
        hint = await tls_hint(problem.details() or "", self._address, tls=self._has_tls)
        if hint:
            return Unavailable(hint, reason=LocalReason.TLS_DIFFERS)
        if hint := proxy_hint(self._address):
            return Unavailable(f"{error.message} {hint}", reason=LocalReason.SERVER_UNREACHABLE)
        return error

    async def close(self) -> None:
        """Cancel the calls in progress and close the connection."""
        await self.channel.close()


def _with_members(request: _RequestT, options: CallOptions) -> _RequestT:
    members = {name: value for name, value in options.items() if name != "timeout_s"}
    if not members:
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    for name, value in members.items():
        setattr(copy, name, value)
    return copy
