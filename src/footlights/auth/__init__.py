"""Who a caller is, what it may do, and what proves it.

* ``tokens``: API tokens, how they are minted, told from typos, stored as keyed digests.
* ``roles``: the roles, the permissions that each one holds, and the ``Caller``.
* ``grants``: short-lived, signed permissions for one viewer of one session.
* ``secrets``: the cluster key, everything derived from it, and the box that secrets lie in at rest.
* ``redaction``: takes tokens and grants out of text before it is logged.

Everything here is pure but for ``ClusterKey.load_or_create``: randomness, time and keys come in as parameters. It
imports nothing of ours but ``errors``. Invariants: no secret is ever stored or logged in the clear, every comparison
of one is constant-time, and each use of the cluster key has a key of its own (HKDF, by label).
"""
