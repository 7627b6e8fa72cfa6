"""The agent's connection to the control plane: one bidirectional stream, dialled by the agent.

``link`` dials, greets, keeps the stream alive and dials again, with growing pauses; ``protocol`` is what a node says
and what it does with what it receives; ``outbox`` holds what waits to be sent, bounded, the newest report of each
launch; ``log_tails`` answers requests for output; ``cluster`` remembers what the last welcome said.

After each dial the hello has the full inventory and every launch, and the control plane answers with the full set of
assignments: both sides agree again whatever was lost between two links. Both sets come in as many parts as they take,
and nothing is ended for not being in a set that is not whole (`footlights.protocol`).

A link ends with a goodbye where either side ends it in order. After that of a server that stops the next address is
dialled after one short pause, first those that it named. A server that does not know the link by its name is of the
release before: it is linked to by the former name, with what that release understands.
"""
