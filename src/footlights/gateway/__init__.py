"""A gateway from REST to gRPC: any proto service with google.api.http annotations, served from its descriptors.

``Gateway(channel, services, options)`` is an ASGI application that mounts anywhere. At start every annotation becomes
a ``Binding`` in a router (``routing``) with an ``Endpoint`` (``endpoint``) that decodes requests (``decode``) and
encodes answers (``encode``). No code is generated, no route is written by hand.

The default dialect is grpc-gateway v2's, quirks included; ``Options(strict=True)`` is for an API that owns its
dialect. Status, code, decoded request and JSON shape of the default dialect equal grpc-gateway's; the wording of errors
is our own, and strict mode adds ``google.rpc`` details (``errors``).

Invariants:

* It knows nothing of Footlights and imports nothing of it except ``footlights.http``.
* A client that leaves cancels its call; a call ends when its exchange ends.
* Every size and time that a client controls is bounded (``options``).
"""

from footlights.gateway.app import Gateway
from footlights.gateway.options import Options
from footlights.gateway.routing.binding import Binding, BindingError, routes

__all__ = ["Gateway", "Options", "Binding", "BindingError", "routes"]
