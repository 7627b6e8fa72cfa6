"""Pools, for those who define them and those whose sessions take their instances.

* `service` answers the calls: it writes what is wanted, and shows how it is. Placement starts and ends the instances
  (``control.pools``).
* `ahead` says what an instance is started with, and which sessions may take it: those of its shape, with what the
  application has or can still be given.
"""
