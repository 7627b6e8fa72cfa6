"""How applications are started, watched and ended on one machine.

What it owns
    The words of a recipe (`template`, `recipe`, `arguments`, `stages`), what one launch of it is (`plan`), and three
    ways to bring it about that keep one protocol (`launcher`): a process of the node (`process`, with its `shim`), a
    container (`container`: Docker's Engine API or podman's command), and nothing at all (`fake`). Beside them, what the
    agent asks of a running launch: is it ready, who watches it (`readiness`), whose ports are these (`ownership`).

How a process is started
    agent ── `process` ──> starter ── fork, setsid ──> `shim` ── fork, setsid ──> application
                             │ says "started" or why not, and is gone          its descendants
    The shim is nobody's child but init's, so that the agent's death is not its death. It is the subreaper of the
    application, holds its output (`output`), and is the only one that signals its tree.

Invariants
    * A plan holds everything but the secrets, so any call may be made again by another agent process from it alone.
    * A process is itself by pid, start time and boot (`procfs.Identity`): a pid that was used again is somebody else.
    * `EXITED` is said when no process of the tree is left, never before.
    * Everything that is started carries the cluster's mark in its environment or labels, so that it can be found
      without a plan.
    * `shim`, `procfs` and `output` import nothing but the standard library: the shim starts in milliseconds and keeps
      as little memory as Python allows.
"""

from __future__ import annotations
