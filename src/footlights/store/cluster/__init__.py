"""The control plane's own state in the database.

``revisions`` draws the numbers that every change to a session gets, and keeps the cluster's id and its key's
fingerprint. ``replica_rows`` says which replicas are alive, ``leader_leases`` which one does the work that one does for
all, under a token that grows. ``database_time`` reads the clock that all replicas share.
"""
