"""Launches: begun on slots, observed by their node's agent, ended once, by proof.

``slots`` takes slots with leases, each decided by a unique index; ``launch_rows`` begins launches, records what agents
report, and says what a launch held its slots for: leases and launches must agree on it.
"""
