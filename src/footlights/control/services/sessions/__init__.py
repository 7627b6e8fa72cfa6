"""StreamingService: sessions from their creation to their end.

``service`` has one short handler for each RPC and leaves the work to the module of its name: ``create``, ``terminate``,
``watch``, ``connect``, ``update``, ``extend``, ``logs``, ``explain``. Shared by them:

* ``access``: whose sessions a caller sees and acts on, one rule for all RPCs.
* ``request_checks``: what a request may ask for, beyond the rules in the proto.
* ``resolve``: from the names in a request to a version with needs, limits and arguments.
* ``present``: rows as messages.

Flow of a creation: ``request_checks`` → ``access.owner`` → the catalog's ``resolve`` → scheduling chooses slots where
no session waits → one batch write of session, launch and leases → the assignment is sent, or the queue decides.
"""
