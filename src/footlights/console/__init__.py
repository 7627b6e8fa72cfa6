"""The console: a page for people who start, watch and drive sessions, and for operators who own nodes.

Owns the files under ``static/`` and how they are served; nothing else. The page is plain ES modules without a build
step and speaks only the public REST API of the origin it came from, with the token the person gave it: it can do
nothing that the API would not let its token do, and the server has no console-only route.

Invariants:

* No secret passes through here. The token travels in the URL's fragment, which a browser never sends, and then only
  in ``Authorization``; no cookie is ever set or read.
* Nothing is loaded from another origin and nothing inline runs: the Content-Security-Policy says so, Trusted Types
  included, and a browser test fails on any violation.
* What is served is what was packed: all files are read once, into memory, when the application is made. No request
  names a path on disk.
"""

from footlights.console.app import console

__all__ = ["console"]
