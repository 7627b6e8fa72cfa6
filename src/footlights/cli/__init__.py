"""The command line: ``footlights``.

* Data on stdout, chatter on stderr; ``-o table|json|yaml|name``; no colour where ``NO_COLOR`` is set or nobody looks.
* An error is one or two lines that say what, why and what to do, and an exit code (``exits``); never a traceback.
* Help is quick: nothing here imports gRPC, the store or the gateway before a command needs it.

``calls`` runs the commands that call the API, ``serve`` and ``up`` the processes, ``show`` says what people see.
"""

from footlights.cli.app import main

__all__ = ["main"]
