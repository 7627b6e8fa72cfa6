"""Where the gateway's calls go.

``protocol`` says what the gateway needs: a callable for each RPC, made once, and one `OutgoingCall` for each call,
which carries metadata in both directions. Two implementations:

* ``grpc``: any gRPC server, over a channel.
* ``local``: handlers in this process, without a socket. It knows nothing of who serves them beyond `LocalService`.

What holds for both (``tests/gateway/test_upstreams.py``):

* Four kinds of calls: one request or many, one response or many.
* A call that fails raises `UpstreamError` with a ``google.rpc.Status``, details included.
* Cancelling the task that waits for a response cancels the call; a deadline ends it with DEADLINE_EXCEEDED.
* A request belongs to the handler, a response to the caller: neither sees what the other one does to it later.
* A slow reader holds the sender back.

``metadata`` turns HTTP headers into metadata and back; ``pipe`` is the bounded queue of a local stream.
"""

from footlights.gateway.upstream.grpc import GrpcUpstream
from footlights.gateway.upstream.local import LocalService, LocalUpstream
from footlights.gateway.upstream.protocol import OutgoingCall, Upstream, UpstreamError

__all__ = ["GrpcUpstream", "LocalService", "LocalUpstream", "OutgoingCall", "Upstream", "UpstreamError"]
