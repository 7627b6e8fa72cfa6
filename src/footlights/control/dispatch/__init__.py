"""Agents' links: what nodes are told to run, and what they report.

An agent opens one stream to one replica (``service``) and says hello. Its name and token may be those of another
machine (``identity``), its addresses must be its own (``node_addresses``). Then it has a link
(``link``), which is its node's in this process (``registry``), and is sent all that its node is to run; after that,
what changes (``sender``). An assignment is made from a launch and its session (``assignments``). What the agent reports
is turned into the store's terms (``observations``) and recorded with the reports of other links (``reports``). A
launch's output is asked for over the link (``log_streams``).

Agents of this release and of the one before are served by the same handler. What an agent understands follows from its
hello (`footlights.protocol.handshake`): sets in parts, recipes once a link, goodbyes.

An agent is not trusted more than a client. What is beyond its bounds (`footlights.protocol.bounds`) ends the link, with
an error that names field and value and is noted on the node; what an agent of the release before sends is cut to them.
What it says too often has to wait (``rates``), what it says of launches that are not its own is dropped, and of an
output it sends as much as was asked for.

What must hold:

* A link owns its state; other modules call its methods. It goes from GREETING through FULL_SET to LIVE, and to CLOSED.
* A node has one link in all replicas: each has an epoch, and what an older one says is void.
* Nothing is begun twice: a launch that was begun over an earlier link and is not known to the agent is stopped.
* What waits for an agent, and what it has said that is not recorded yet, is bounded; then the link closes or is held
  back.
* A link is small: thousands are open, and most of them are silent most of the time. So no task, queue or event exists
  while there is nothing to do.
* One assignment that cannot be made, or one report that cannot be recorded, concerns no other.
"""
