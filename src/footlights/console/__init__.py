"""The console: a web page for users who start and drive sessions, and for operators of nodes.

This package holds the files under ``static/`` and serves them (``assets`` reads them, ``app`` answers requests), with
NVIDIA's streaming library where an operator provides it (``kit_library``); nothing else. The page is plain ES modules
without a build step. It uses only the public REST API of its own origin, with the user's token: it can do only what
that token allows, and the server has no console-only route.

In ``static/``: ``main.js``, ``router.js`` and ``shell.js`` are the frame; ``views/`` has the pages, by subject
(``sessions/``, ``picture/``, ``fleet/``, ``catalog/``, ``account/``); ``api/`` calls the server and keeps the watched
sessions; ``ui/`` has what all pages share; ``stream/`` plays a session and sends input; ``kit/`` is the page around
NVIDIA's library.

What must hold:

* No secret passes through the server. The token is in the URL's fragment, which a browser never sends, and then only
  in ``Authorization``; no cookie is set or read.
* Nothing is loaded from another origin and no inline code runs: the Content-Security-Policy forbids it, with Trusted
  Types, and a browser test fails on any violation.
* Only packaged files are served, and the library's: all are read once, into memory, at start. No request names a path
  on disk.
* The library is code of others. It runs in a sandboxed frame without an origin, gets a grant for one session, and
  cannot read the page or its token, nor ask another server.
"""

from footlights.console.app import console

__all__ = ["console"]
