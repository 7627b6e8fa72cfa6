"""Which nodes are alive: heartbeats, and the guard against believing too much silence.

Every message of an agent touches its link. Each replica judges the nodes whose links it has (``heartbeats``): one that
was silent for three intervals is marked UNREACHABLE. Before anything is marked or ended, the guard (``mass_loss``) asks
whether this process itself may be the reason: it has just started, stood still, has lost its store, or most nodes fell
silent at once. While it pauses, nothing ends.

What must hold: only spans on the monotonic clock are compared, so a wall clock that jumps makes no node silent.
"""
