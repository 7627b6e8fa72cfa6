"""Applications in containers.

``launcher`` keeps the launcher's protocol over an ``engine``: ``docker`` (the Engine API over a Unix socket) or
``podman`` (its command). ``engines`` chooses among them. ``log_lines`` turns an engine's log into parts with cursors;
``recipe`` checks a version's ``container``, ``rules`` what the node's operator allows. Tests use stand-ins; with
`make test-real` also Docker and podman.

What separates a container from all else (`engine.ContainerSpec`, `launcher`)
    * a user that is not root, no capabilities, no new privileges, the engine's filter of system calls;
    * a read-only root, directories in memory that end with it, mounts only where the operator allows them;
    * a network of its own with the launch's three ports published; no other container is on it;
    * limits of memory, processors, tasks and of what it writes, its output included.
An engine that cannot keep one of these is not used. What is not separated: the kernel, the GPU's driver, and, with
``--container-network node``, the network.
"""
