"""What Linux offers beyond Python's standard library: files that are safe to crash in, processes, and prctl(2).

The standard library only, and this file imports nothing: the shim of every running application uses it.
"""
