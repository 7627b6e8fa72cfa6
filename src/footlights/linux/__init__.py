"""What Linux offers beyond Python's standard library: files that are safe to crash in, processes, and prctl(2).

``files`` writes files that a reader sees whole or not at all, and locks between processes. ``procfs`` reads /proc:
which process is which, whose child it is, what its environment marks it as. ``prctl`` ties processes together.

Everything here imports the standard library only, and this file imports nothing: the shim of every running application
(`footlights.launch.process.shim`) uses it, and must start in milliseconds and stay small.
"""
