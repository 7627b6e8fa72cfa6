"""OpenAPI 3.1 from descriptors, for any annotated service.

``document`` makes operations of the bindings and options that the gateway itself serves, so the two cannot differ;
``schema`` makes JSON Schema of messages, and ``comments`` reads descriptions from a descriptor set with source info,
since generated modules hold none. Defaults, bounds and examples are the ``footlights.http.v1.rules`` option of fields,
required members and read-only ones ``google.api.field_behavior``.
"""

from footlights.gateway.openapi.document import Info, document

__all__ = ["Info", "document"]
