"""A gateway from REST to gRPC: any proto service with google.api.http annotations, served from its descriptors.

``Gateway(upstream, services, options)`` is an ASGI application that mounts anywhere. At start every annotation becomes
a ``Binding`` (``routing``): a path template in a router, with an ``Endpoint`` that decodes requests (``decode``) and
encodes responses (``encode``). No code is generated, no route is written by hand.

A request passes ``app`` (bounds, routing, errors), ``endpoint`` (the message), ``upstream`` (the call) and comes back
through ``endpoint`` or ``streaming``. ``exchange`` is the HTTP side of it, ``body`` reads uploads, and ``guard``
cancels the call when its client has disconnected or its deadline passes. ``upstream`` is any gRPC server
(`GrpcUpstream`) or handlers in this process (`LocalUpstream`). ``command`` is the gateway as a process of its own, with
``health`` and ``docs`` beside the API.

The default dialect is grpc-gateway v2's, quirks included; ``Options(strict=True)`` is for an API that owns its
dialect. Status, code, decoded request and JSON shape of the default dialect equal grpc-gateway's; the wording of errors
is our own, and strict mode adds ``google.rpc`` details (``errors``).

What ``google.api.http`` cannot say is in the options of ``footlights/http/v1/annotations.proto``, and holds in both
dialects: statuses and headers of answers (``reply``), headers that carry fields (``decode.headers``), deprecated paths
(``routing.deprecation``). ``Accept`` chooses between the two forms of a stream; else it is ignored, and answers are
JSON.

Invariants:

* It knows nothing of Footlights and imports nothing of it except ``footlights.http``.
* A client that disconnects cancels its call; a call ends when its exchange ends.
* Every size and time that a client controls is bounded (``options``).
"""

from footlights.gateway.app import Gateway
from footlights.gateway.options import Options
from footlights.gateway.routing.binding import Binding, BindingError, routes
from footlights.gateway.upstream import GrpcUpstream, LocalUpstream

__all__ = ["Gateway", "Options", "GrpcUpstream", "LocalUpstream", "Binding", "BindingError", "routes"]
