"""The node agent: runs what the control plane assigns to one node, and reports what it sees.

What is in here
    ``main`` puts the parts together, and starts and stops them in order. ``link`` is the connection to the control
    plane, ``launches`` the node's launches from assignment to proved end, ``devices`` its devices and ports. ``offer``
    knows which launchers work, ``facts`` describes the node, ``config`` is what an operator may set.

How data flows
    link ── assignments ──> Launches ──> one Runner a launch ── journal ──> launcher ──> application
     ^                                     │ look -> step.decide (pure) -> do one thing
     └── Outbox (newest report a launch) <─┘

What must hold
    * States only grow; the first final state wins. A launch that the journal knows is never started twice.
    * The journal is on disk before anything is executed, and before a final state is reported.
    * A slot has one launch that is not over; a port block has one holder until its launch's end is proved.
    * An end is reported with proof: the tree is gone, it listens on none of its ports, the driver lists it no more. A
      driver that does not answer holds it up for half a minute only: until it answers its devices are given to nobody.
    * Nothing that blocks runs on the event loop: device reads and journal writes have threads and deadlines.
    * Every loop and every launch is supervised (`footlights.supervision`): a fault in one costs no other.
    * Without a link everything goes on. Only durations are reported, measured on the boot-time clock.
    * Secrets pass through memory to the launcher, and nowhere else.

How it stops (SIGTERM): launches are ended if ``--drain-on-stop`` says so, what waits is sent, the link's stream is
half-closed, the loops end, and the launchers and devices are closed. Applications that are left running are found
again by the next agent.

``footlights.agent.v1``, the messages of the link, is generated into the other tree; ``extend_path`` joins the two.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
