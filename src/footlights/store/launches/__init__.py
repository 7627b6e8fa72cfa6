"""Launches: begun on slots, observed by their node's agent, ended once, by proof.

``slots`` takes slots with leases, each decided by a unique index; ``launch_rows`` begins launches and records what
agents report; ``ledger`` is the account of slot-seconds that leases and launches must agree on.
"""
