"""What every call passes, between a transport and a handler.

::

    gRPC server ── grpc_adapter ──┐
                                  ├── pipeline.run(rpc, request, call, proceed) ── handler(request, call)
    REST gateway ── local ────────┘

* ``registry`` resolves each RPC once: handler, permission and rules come from its descriptor. A handler that is missing
  and an RPC without a permission are refused at start.
* ``context`` has what handlers see of a call: `Call`, and `MessageStream` for both directions of a bidirectional one.
* ``pipeline`` takes the request id, then ``authenticate``, the permission, ``idempotency_key``, ``validate``, the
  handler; it turns every failure into an `errors.Error`, counts the call and logs it. It also ends the calls of a
  process that stops.
* ``grpc_adapter`` and ``local`` translate metadata, deadline, cancellation and errors of their transport, and no more.
* ``shares`` bounds what callers take that show nothing; ``open_calls`` has health and reflection, which are for them.
* ``bounds`` holds spans of time in requests; ``pacing`` keeps REST from starving agents' links in a shared process.

What must hold: a handler behaves the same over both transports, and nothing but the adapters imports gRPC. Cancellation
is the cancellation of the task that runs the handler.
"""
