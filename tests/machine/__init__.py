"""A machine with a systemd of its own, for tests marked ``real``: a Debian root, booted by systemd-nspawn.

``machine`` boots it, ``remote`` runs an object's methods in a process in there, ``launcher`` is such an object. The
fixture is in ``tests/conftest.py``.
"""
