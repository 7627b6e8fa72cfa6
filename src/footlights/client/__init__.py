"""The SDK: the API in Python, typed, over ``grpc.aio``.

    async with Client.connect("127.0.0.1:50051", token) as client:
        session = await client.sessions.create(CreateSessionRequest(application="usd-viewer"))
        session = await client.sessions.wait_ready(session.session_id, timeout_s=900)

Requests and answers are the API's own messages. The client adds a deadline to every call; errors of the classes in
``footlights.errors`` (the same ones that the server raised); retries of calls that may be repeated (``retries``);
watches that survive a lost connection; and waiting for a session (``sessions``). ``applications`` and ``fleet`` hold
the other services, ``client`` combines them.

An enum may have a value that this release does not know: ``field_name(session, "state")`` is its name, or its number,
and ``is_ready``, ``is_over`` and ``has_ended`` never raise.
"""

from footlights.client.client import Client
from footlights.client.connection import Tls
from footlights.client.errors import DeadlineExceeded, ServerTooOld, SessionOver
from footlights.client.sessions import has_ended, is_over, is_ready
from footlights.protocol.enums import field_name

__all__ = [
    "Client",
    "DeadlineExceeded",
    "ServerTooOld",
    "SessionOver",
    "Tls",
    "field_name",
    "has_ended",
    "is_over",
    "is_ready",
]
