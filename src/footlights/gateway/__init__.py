"""A gateway from REST to gRPC: any proto service with google.api.http annotations, served from its descriptors.

``Gateway(upstream, services, options)`` is an ASGI application that mounts anywhere. At start every annotation becomes
a ``Binding`` (``routing``): a path template in a router, with an ``Endpoint`` that decodes requests (``decode``) and
encodes responses (``encode``). No code is generated, no route is written by hand.

A request passes ``app`` (bounds, routing, errors), ``body`` (its bytes), ``endpoint`` (the message), ``upstream`` (the
call) and comes back through ``endpoint`` or ``streaming``; ``exchange`` is the HTTP side of it, ``disconnect`` ends the
call of a client that has gone. ``upstream`` is any gRPC server (`GrpcUpstream`) or handlers in this process
(`LocalUpstream`). ``command`` is the gateway as a process of its own, with ``health`` and ``docs`` beside the API.

The default dialect is grpc-gateway v2's, quirks included; ``Options(strict=True)`` is for an API that owns its
dialect. What is refused has the reference's words by default, and plain words with details in strict mode: every
refusal knows both.

Invariants:

* It knows nothing of Footlights and imports nothing of it except ``footlights.http.v1``, its own options.
* What a body means is defined by ``decode.reader``, what a message looks like by ``encode.writer``; anything faster
  must be equal.
* A client that disconnects cancels its call; a call ends when its exchange ends.
* Every size and time that a client controls is bounded (``options``).
"""

from footlights.gateway.app import Gateway
from footlights.gateway.options import Options
from footlights.gateway.routing.binding import Binding, BindingError, routes
from footlights.gateway.upstream import GrpcUpstream, LocalUpstream

__all__ = ["Gateway", "Options", "GrpcUpstream", "LocalUpstream", "Binding", "BindingError", "routes"]
