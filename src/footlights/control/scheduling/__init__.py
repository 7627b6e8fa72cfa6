"""Scheduling: which session gets which slots, and what the others are told meanwhile.

    store -> cache (fleet in memory) --+
                                       +-> Index (pure) -> guarded write of leases and launches
    store -> pending (queue by pages) -+

* `loop` makes the passes, on the one replica that holds the lease. Level-triggered: a signal hurries it, a period
  guarantees it. A session that is created gets its slots at once, by `PlacementLoop.hold`, unless one that
  waits would be placed now.
* `cache` keeps the fleet in memory for the index, and holds slots on their way into the store.
* `pending` reads the queue by pages and decides on it group by group; `outlook` estimates when those that wait are
  ready, from the leases that could serve them; `queue_places` chooses who is told what; `views` turns
  rows into what the index sees.
* `guard` and `quarantine` say what is left alone for a while after failures: nodes, versions and what they are given;
  devices.

What must hold:

* The index only proposes. A slot is given once at all because the store has a unique index on live leases.
* What no node could ever serve is set aside with the need that is not met, until a node joins that could.
* A session that fits is placed whatever waits before it and does not fit, however long the queue is.
* A row that cannot be read, or a session that cannot be placed, is logged, counted and skipped; a session says so in
  its queue reasons.
"""
