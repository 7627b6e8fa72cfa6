"""The public way of viewers to the signalling of their session; media never passes here.

The front door owns two routes: ``/v1/sessions/{session_id}/whep[/{resource}]`` (HTTP) and
``/v1/sessions/{session_id}/sign_in`` (WebSocket), both also below ``/stream``, where the URLs of grants lead in this
release: front doors of the release before know only those. ``/sign_in`` alone is for players that are given a host. A
request passes these steps:

1. ``app`` finds the route and counts the request; ``credentials`` takes the viewer's grant out of it.
2. ``checks`` verifies the grant, finds the session and refuses one that cannot be connected to.
3. ``whep_proxy`` or ``websocket_proxy`` passes the request to the application on its node, through ``node_client``.
4. ``answers`` gives errors and answers their form.

``openapi`` describes the routes.

What must hold:

* Only a grant opens a route, and only for the session that it names. It is removed from header, query and subprotocol
  before anything is passed on or logged. One that has opened a session opens it again for as long as the session lives.
  Where an operator says so, the ids of one user's sessions open ``sign_in`` for them.
* Errors of authentication and of state are never 400: players take a 400 as a hint to try another protocol.
* Bodies, messages, waits, concurrent requests and sockets are bounded; the latter also per user, session and grant
  (``places``).
* Who is connected is noted in a register that it is given, so that viewers can be listed and disconnected. Nothing else
  is stored. A WHEP resource id carries its own signature, so any replica serves it, also after a restart.

``node_client.dial`` is the one function that reaches a node; a tunnel over the agent's link would replace it.
"""

from footlights.frontdoor.answers import FrontDoorError
from footlights.frontdoor.app import FrontDoor
from footlights.frontdoor.interfaces import (
    GrantVerifier,
    Limits,
    OpenSessions,
    PlaceLimits,
    Resolve,
    Target,
    ViewerGrant,
    ViewerRegister,
)
from footlights.frontdoor.whep_proxy import end_resources

__all__ = [
    "FrontDoor",
    "FrontDoorError",
    "GrantVerifier",
    "Limits",
    "OpenSessions",
    "PlaceLimits",
    "Resolve",
    "Target",
    "ViewerGrant",
    "ViewerRegister",
    "end_resources",
]
