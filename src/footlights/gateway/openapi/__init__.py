"""OpenAPI 3.1 from descriptors, for any annotated service.

``document`` makes operations of the bindings and options that the gateway itself serves, so the two cannot differ:
``requests`` their parameters and bodies, ``answers`` their statuses, headers and errors. It also merges fragments of
what others serve on the same origin. ``comments`` reads descriptions from a descriptor set with source info, since
generated modules hold none.

``schema`` makes JSON Schema of messages, ``request_schema`` and ``answer_schema`` what differs between the directions,
and ``components`` collects them. Defaults, bounds, headers and examples are the ``footlights.http.v1.rules`` option of
fields, required members and read-only ones ``google.api.field_behavior``. What must hold:

* Requests are closed in strict mode, and nothing is required but REQUIRED members. They do not have members that only
  answers have. A default is a hint: generators do not take the member for one that is always there.
* Answers are open. All members are required that the gateway always prints, and an enum allows values to come.
* A message of both directions has the suffix ``Input`` in requests. Names of schemas and operations stay the same while
  messages, RPCs and bindings are only added.
"""

from footlights.gateway.openapi.document import Info, document

__all__ = ["Info", "document"]
