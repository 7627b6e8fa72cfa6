"""The commands, one module per group of the command line.

A command that calls the API is a coroutine function registered with ``calls.command``: it gets the common options as a
``Cli``, makes its calls through ``footlights.client``, and prints with ``output.emit``. Nothing here holds logic that a
program would miss: what a command can do, the client can do.
"""
