"""Applications in containers.

``launcher`` keeps the launcher's protocol over an ``engine``: ``docker`` (the Engine API over a Unix socket) or
``podman`` (its command). ``engines`` chooses among them and remembers nothing that the engines know. ``log_lines``
turns an engine's log into parts with cursors; ``recipe`` checks a version's ``container``.
"""
