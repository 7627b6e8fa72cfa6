"""Messages to answers.

``writer`` compiles a function for each message type that prints it as JSON, with ``scalar_text`` for single values and
``well_known`` for types whose JSON is their own. ``status_text`` prints errors, and ``framing`` puts the messages of a
stream on the wire.

What must hold: the JSON is protojson's with EmitUnpopulated, as grpc-gateway's default options print it. A message that
has no JSON raises ``WriteError``.
"""
