"""This replica among the others on one Postgres. On SQLite there is one, and none of this writes anything.

Replicas meet in the store: each writes heartbeats and looks at those of the others (``membership``). Work that one does
for all is under a lease with a fencing token (``work_lease``). Signals travel as notifications of the database
(``notifications``). What only the replica with a node's link can say is asked for over gRPC (``peers``).

What must hold:

* No two machines' clocks are compared: a replica is gone when its counter did not grow for several looks.
* A replica whose lease was taken over writes nothing, whether it knows that already or not.
* A notification is a hint: it may be lost, and every reader also looks on its own after a period.
"""
