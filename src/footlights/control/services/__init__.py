"""The services of the API: what each RPC does, without transports.

A module serves one service of the protos; ``sessions/`` is the StreamingService. A handler reads or writes the store in
one transaction, publishes a signal (`Signals`) where others have to look, and returns a message. It writes what is
wanted; what was observed of nodes and launches is written by ``dispatch`` and ``liveness``.

A write is a unit of work that is given to ``writes``, which does it once for each request id, or only validates it;
``etags`` compares what a caller has read, ``masks`` changes members of a resource.

``catalog`` remembers resolved versions and profiles; ``bootstrap`` makes an operator's token without a server.

What must hold: nothing here imports gRPC or HTTP; a handler fails with an `errors.Error` that names the field, the
value and the fix; nothing is decided before an await and acted on after it, except inside a transaction.
"""
