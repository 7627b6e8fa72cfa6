"""The command line: ``footlights``.

* Data goes to stdout, everything else to stderr; ``-o table|json|yaml|name``; no colour with ``NO_COLOR`` or without a
  terminal.
* An error is one or two lines with the cause and the fix, and an exit code (``exits``); never a traceback.
* Help is fast: nothing here imports gRPC, the store or the gateway before a command needs it.

``app`` puts the commands together; before any of them ``secret_files`` reads secrets that are given by file. ``calls``
gives the commands that call the API their common options; ``options`` generates those of the long-running processes
from their settings. ``show`` turns messages into text, ``output`` prints it; ``live`` and ``progress`` show what a
command waits for. The commands are in ``commands``; ``local`` is ``footlights up``.
"""

from footlights.cli.app import main

__all__ = ["main"]
