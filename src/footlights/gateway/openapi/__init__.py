"""OpenAPI 3.1 from descriptors, for any annotated service.

What an operation takes and answers is read from the same bindings and options that the gateway serves, so the
document cannot promise what is not there. Comments need a descriptor set with source info, since generated modules
hold none. Defaults, bounds and examples are the ``footlights.http.v1.rules`` option of fields, required members and
read-only ones ``google.api.field_behavior``.
"""

from footlights.gateway.openapi.document import Info, document

__all__ = ["Info", "document"]
