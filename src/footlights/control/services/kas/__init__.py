"""NVIDIA's Kit App Streaming as its clients use it, over the handlers of our own API.

``streams`` has sessions, ``apps`` applications with their versions and profiles, ``paths`` where REST serves both. The
dialect's rules are those that its clients need: no 400, which they take for a success; 202 until a stream can be
connected to; one host in ``routes``, since they take the first for everything; what has ended is not found.
"""
