"""From an HTTP method and path to an RPC, read from descriptors.

``descriptors`` finds services that are not imported. ``binding`` reads their ``google.api.http`` rules into bindings,
each with a ``path_template``; a rule that cannot be served fails there, at start, with the RPC and the path in its
message; ``deprecation`` has what the answers of a deprecated path say. ``router`` finds the binding of a request.

What must hold: routing follows grpc-gateway. The binding declared last wins, paths are matched decoded and are not
cleaned, and ``*`` matches an empty component, too. Only the ``Router`` of strict mode differs.
"""
