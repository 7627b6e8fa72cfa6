"""Applications as processes of the node.

``launcher`` starts each under a ``shim``, which outlives the agent; ``output`` holds what it writes; ``ownership``
finds which process listens on a port. The shim imports this package: nothing may be imported here.
"""
