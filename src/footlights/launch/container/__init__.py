"""Applications in containers.

``launcher`` keeps the launcher's protocol over an ``engine``: ``docker`` (the Engine API over a Unix socket) or
``podman`` (its command). ``engines`` chooses among them. ``log_lines`` turns an engine's log into parts with cursors;
``recipe`` checks a version's ``container``. Tests use stand-ins; Docker 20.10 and podman 4.3 were tried by hand.
"""
