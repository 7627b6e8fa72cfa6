"""Applications as processes of the node.

``launcher`` starts each under a ``shim``, a small process that outlives the agent, holds the application's output
(``output``) and writes down how it ended. ``ownership`` finds which process listens on a port.

The shim imports this package: nothing may be imported here.
"""
