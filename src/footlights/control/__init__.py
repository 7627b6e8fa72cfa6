"""The control plane: calls from users and operators, agents' links, and the loops between them.

    REST - gateway -+
    gRPC -----------+- call pipeline - handler - one transaction - commit - signals
                                                                              |
          scheduling: fleet (memory) - scheduler (pure) - guarded write of leases and launches
                                                                              |
             link: assignments (full set, then changes) -> agent -> reports (observed state)

* A handler writes intent, never observed state.
* Loops are level-triggered: a signal hurries them, a period guarantees them; a lost signal costs latency only.
* Every loop runs under the supervisor, and within a pass one bad item is skipped alone.
* State has one owner: no module assigns an attribute of another one's object.
* Of several processes on one Postgres each has roles (``settings``). They meet in the store (``replication``): work
  that one does for all is under a leader lease with a fencing token. A node is judged by the replica that has its
  link (``liveness``).
* A session that is created while none waits is placed at once; the database decides.

Each package's docstring is its design note. Which may import which is a contract in ``pyproject.toml``.
"""
