"""The node agent: brings about what the control plane assigns to one node, and says what it sees.

Owns: the link (``link``, ``outbox``), the set of launches and its agreement with the assignments (``launches``), one
launch's way from assignment to proved end (``runner``, which does what ``step`` decides), what must survive a restart
(``journal``), the node's ports (``ports``) and devices (``inventory``).

How things flow, one way::

    link ── assignments ──> Launches.reconcile ──> one Runner a launch ── journal ──> launcher ──> application
     ^                                                │ observe -> step.decide (pure) -> perform
     └── Outbox (newest report a launch) <── changed ─┘

Invariants:

* States only grow; the first final state wins. A launch that the journal knows is never started twice.
* The journal is on disk before anything is executed, and before a final state is reported.
* A slot has one launch that is not over; a port block has one holder until its launch's end is proved.
* An end is said with proof: the tree is gone, none of its ports is listened on by it, the driver no longer lists it.
* Nothing that blocks runs on the event loop: device reads, journal writes and the like have threads and deadlines.
* Without a link everything goes on. Only durations are told, measured on the boot-time clock.
* Secrets pass through memory to the launcher, and nowhere else.
"""
