"""Expiry: everything that happens because time has passed.

`loop` makes one pass a second. Each replica judges the heartbeats of its own nodes (`liveness`); the rest is done by
the one replica that holds the lease:

* `deadlines` ends sessions that waited in the queue, or whose node is drained, for too long;
* `stuck` reports launches that should have been proved gone long ago;
* `retention` removes old sessions, idempotency keys and search terms;
* `fleet_report` counts ended sessions and keeps the fleet's gauges.

What must hold:

* While the mass-loss guard holds, no deadline runs: it is not known which nodes were missed.
* A wall clock that jumps ends and removes nothing. What this process waits for is counted down on the monotonic clock
  (`countdowns`); how long something had waited when it was first seen, and what is old enough to be removed, is
  measured by the cautious clock (`control.clock`).
* One session, launch or part that fails is logged, counted and skipped; the others go on. A lost database or lease
  ends the pass.
"""
