"""A gateway from REST to gRPC: any proto service with google.api.http annotations, served from its descriptors.

``Gateway(channel, services, options)`` is an ASGI application that mounts anywhere. At start every annotation becomes
a ``Binding`` (``binding``), a template (``template``) in a router (``routing``) with an ``Endpoint`` that decodes
requests and encodes answers (``endpoint``). No code is generated, no route is written by hand.

The default dialect is grpc-gateway v2's, quirks included; ``Options(strict=True)`` is for an API that owns its
dialect. What is refused has the reference's words by default, and plain words with details in strict mode: every
refusal knows both.

Invariants:

* It knows nothing of Footlights and imports nothing of it but ``footlights.http.v1``, its own options.
* What a body means is defined by ``reader``, what a message looks like by ``writer``; anything faster must be equal.
* A client that leaves cancels its call; a call ends when its exchange ends.
* Every size and time that a client controls is bounded (``options``).
"""

from footlights.gateway.app import Gateway
from footlights.gateway.options import Options
from footlights.gateway.routing.binding import Binding, BindingError, routes

__all__ = ["Gateway", "Options", "Binding", "BindingError", "routes"]
