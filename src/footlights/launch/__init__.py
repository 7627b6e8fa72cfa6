"""How applications are started, watched and ended on one machine.

What is in here
    ``recipe`` holds the words of a version and their checks, ``plan`` makes one launch of it. ``launcher`` is the
    protocol that every launcher keeps, ``launchers`` the registry of those there are: a process of the node
    (``process``, with its ``shim``), a container (``container``: Docker's Engine API or podman's command), and nothing
    at all (``fake``). ``probes`` asks a running launch whether it is ready and who watches it. ``splice`` takes the
    connections of signalling for an application that cannot check its launch's secret. ``firewall`` writes the node's
    packet filter, ``writable`` knows where applications write, ``caches`` what is kept for them to read.

How a process is started
    agent ── ``process`` ──> starter ── fork, setsid ──> ``shim`` ── fork, setsid ──> application
                             │ says "started" or why not, and is gone          its descendants
    The application has a control group of its own, where the agent may make one (``linux.cgroups``), and is confined to
    its state (``linux.landlock``): what the agent and the shim trust is not its to change. Its HOME, TMPDIR and caches
    are made for the launch and removed with it (``session_state``).

    The shim is init's child, so that it outlives the agent. It is the subreaper of the application, holds its output,
    and is the only one that signals its tree.

What must hold
    * A plan holds everything except the secrets, so any call may be made again by another agent from it alone.
    * A process is itself by pid, start time and boot (`procfs.Identity`): a pid that was used again is another process.
    * ``EXITED`` is said when no process of the tree, nor of its control group, is left, never before.
    * Everything that is started carries the cluster's mark in its environment or labels, so that it can be found
      without a plan. A container stays with the engine that started it.
    * The shim imports the standard library and `footlights.linux` only: it starts in milliseconds and stays small.
"""
