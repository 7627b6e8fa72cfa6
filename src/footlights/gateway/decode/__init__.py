"""Requests to messages.

A request message is filled in four steps: the body (``body_reader``), path variables over it, then query or form
parameters (both ``parameters``, with ``text_scalars`` for single values and ``query`` for the text of a query), and
headers that carry fields (``headers``). Strict mode refuses two different values for one field.

A body is JSON. ``json_text`` parses the first value of a text and keeps what Python's values would lose;
``message_reader`` compiles a function for each message type that fills a message from such a value, with
``json_scalars`` for single values and ``well_known`` for types whose JSON is their own. ``mask`` derives the update
mask of a PATCH, ``splitter`` cuts a streamed body into values, ``names`` has the names that fields may be given by.

What must hold:

* What is accepted is what protojson accepts: repeated members are refused, also in two spellings; ``1e2``, ``3.0`` and
  numbers in strings are integers; ``-0`` keeps its sign; base64 may be of either alphabet; half of a surrogate pair, a
  byte order mark and ``NaN`` outside a string are refused. The tests compare with ``json_format`` and grpc-gateway's
  recorded answers, and explain every difference.
* A message that is accepted can be serialised and parsed again: nesting is bounded by what protobuf parses.
* Only ``GatewayError`` leaves these modules for a request that is wrong.
"""
