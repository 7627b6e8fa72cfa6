"""Identity: who a caller is, what it may do, and what proves it.

* ``tokens``: API tokens: how they are made, parsed and stored as keyed digests; and the proof of another replica.
* ``roles``: the roles, the permissions of each, and the ``Caller``.
* ``grants``: short-lived, signed permissions for one viewer of one session.
* ``relays``: time-limited credentials for TURN relays.
* ``secrets``: the cluster key, the keys derived from it, and the encryption of secrets at rest.

How data flows: a request's credentials are parsed here, looked up by the caller of this package (only the store knows
rows), and become a ``Caller``, which the pipeline asks for permissions.

Everything is pure except ``ClusterKey.load_or_create``: randomness, time and keys are parameters. Only ``errors`` is
imported from Footlights. What must hold: no secret is stored or logged in the clear, secrets are compared in constant
time, and each use of the cluster key has its own derived key (HKDF, by label).
"""
