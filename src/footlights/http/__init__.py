"""What every HTTP surface of ours needs, each once: CORS, bounded bodies, request ids, HTTP statuses of gRPC codes.

The gateway and the front door are built on it. It is pure ASGI and knows nothing of Footlights, so the gateway stays
usable in front of any gRPC server. Nothing here sends an answer: its callers own the form of their errors.

``footlights.http.v1``, the options of the protos, is generated into the other tree; ``extend_path`` joins the two.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
