"""A viewer's way to its session's signalling, over the public origin.

The front door owns exactly two routes: ``/stream/{session_id}/whep[/{resource}]`` (HTTP) and
``/stream/{session_id}/sign_in`` (WebSocket). It checks the viewer's grant, asks where the session runs, and passes
the request to the node's signal port. Media never comes this way.

Invariants:

* A grant, and only a grant, opens a route, and only for the session it names. It goes no further than this: it is taken
  out of header, query and subprotocol before anything is passed on, and out of the scope before the server logs it.
* Auth and state are never 400: players read 400 as "try otherwise".
* Everything is bounded: bodies, messages, waits, requests and sockets at once.
* Nothing is stored. A WHEP resource carries its own signature, so any replica can serve it, also after a restart.

``dial`` is the one function that reaches a node; a tunnel over the agent's link would replace it.
"""

from footlights.frontdoor.app import FrontDoor
from footlights.frontdoor.ways import Grant, Grants, Limits, Resolve, Target

__all__ = ["FrontDoor", "Grant", "Grants", "Limits", "Resolve", "Target"]
