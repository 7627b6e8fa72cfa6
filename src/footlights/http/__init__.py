"""What every HTTP surface of ours needs, each once: bounded connections and bodies, CORS, request ids, statuses.

The gateway and the front door are built on it. It is pure ASGI and knows nothing of Footlights, so the gateway stays
usable in front of any gRPC server. Its callers own the form of their errors; only `server`, which refuses what never
becomes a request, answers by itself.

``footlights.http.v1``, the options of the protos, is generated into the other tree; ``extend_path`` joins the two.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
