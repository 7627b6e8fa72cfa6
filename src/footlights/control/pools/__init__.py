"""Pools: instances that are started before there are sessions for them.

The keeper makes its pass after each of placement's, on the replica that leads that, with the same fleet in memory and
under the same lease: what waits was placed then, so a pool takes only what no session could use. Level-triggered: it
reads the pools and their instances, decides, and writes.

* `keeper` reads, starts, ends, and says of each pool how it is.
* `sizes` says how many instances a pool is to have, by a fixed number or by a wait goal.

How an instance is handed over is in ``store.pools`` (one transaction) and in ``control.services.sessions`` (who may
take it); which gives its slot back, in ``scheduler.yielding``.

What must hold:

* A session that waits comes first: an instance whose slots it could use gives them back, and none is started on a node
  that it could use.
* An instance on a node that is cordoned or drained, of a version that its pool does not name any more, or beyond the
  size, ends at once, and another one is started where there is room.
* Instances that fail are started again after growing pauses.
"""
