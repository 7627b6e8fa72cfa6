"""Nodes: their links, their devices and what happened to these, and the fleet as the scheduler reads it.

``links`` opens and closes links under a growing epoch, ``inventory`` replaces what is known of a node's devices and
notes in ``device_history`` what became of them, ``node_rows`` reads and changes nodes, ``fleet`` reads all that placing
needs in a few statements.
"""
