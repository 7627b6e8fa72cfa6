"""A ``grpc.aio.Channel`` to handlers in the same process: no socket, the same interceptors, the same semantics.

A hop over loopback costs several times what everything else in a request does. ``Channel`` runs unchanged stubs
against unchanged servicers: fill a ``Handlers`` with the generated ``add_XServicer_to_server`` and give the channel the
same interceptors as the server. One contract suite runs over both and holds them together
(``tests/gateway/test_channels.py``); what cannot be equal is listed there and here.

Invariants:

* One task a call, in a copy of the context in which the channel was made, never the caller's; interceptors and
  handler share it.
* A message is copied when it is sent, in the sender's turn of the loop; its receiver owns the copy.
* A call's end is set once: by the handler's end, the deadline, a cancellation or the channel's close, whichever is
  first. The handler's end waits until what it sent has been read; the others drop it.
* Streams hold a few messages each way and then make their writer wait.

Not equal to the wire: ``peer()`` is ``inproc:`` and nothing is authenticated by transport (pass the client's address in
metadata); message and metadata sizes, ``max_concurrent_rpcs``, keep-alive, compression and credentials are the
transport's and not here; a handler whose client cancels an upload sees ``CancelledError`` at once instead of an end of
stream first; a handler that raises ``CancelledError`` itself ends its call at once; a stream call that is dropped
unread is cancelled; synchronous handlers are refused.
"""

from footlights.gateway.inprocess.channel import Channel, Handlers

__all__ = ["Channel", "Handlers"]
