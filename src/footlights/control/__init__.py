"""The control plane: interceptors, one servicer a service, and the loops.

    REST - gateway -+
    gRPC -----------+- interceptors - servicer - one transaction - commit - wake
                                                                             |
             placing: board (memory) - scheduler (pure) - guarded write of leases and launches
                                                                             |
              link: assignments (full set, then changes) -> agent -> reports (observed state)

* A servicer writes intent, never observed state.
* Loops are level-triggered: a wake-up hurries them, a period guarantees them; a lost wake-up costs latency only.
* Messages and rows are joined in ``convert`` and nowhere else.
* Of several processes on one Postgres each has roles (``settings``). They meet in the store alone: ``replicas`` says
  who lives and whose work it is, ``passing`` carries wake-ups, ``peers`` asks the one that has a node's link. A node is
  judged silent by the replica that has its link (``silence``); placing and reaping are done by whoever holds the work,
  under a token that a later holder voids.
* A session that is created while nobody waits is placed at once (``creating``, ``board``); the database decides.
"""
