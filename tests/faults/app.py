"""A streaming application that costs nothing: keeps the launch contract with the standard library alone.

``python -S app.py HTTP SIGNAL [--children N] [--stubborn] [--exit-after S] [--slow S]``. Its children leave its group
and session, as a real renderer's helpers may; ``--stubborn`` ignores SIGTERM, in the children too.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys
import time


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("http", type=int)
    parser.add_argument("signalling", type=int)
    parser.add_argument("--children", type=int, default=0)
    parser.add_argument("--stubborn", action="store_true")
    parser.add_argument("--exit-after", type=float, default=0.0)
    parser.add_argument("--slow", type=float, default=0.0)
    options = parser.parse_args()
    if options.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(options.children):
        _leave()
    started = time.monotonic()
    http, signalling = _listen(options.http), _listen(options.signalling)
    print(f"listening, pid {os.getpid()}", flush=True)
    while True:
        readable, _, _ = select.select([http, signalling], [], [], 0.5)
        lived = time.monotonic() - started
        if options.exit_after and lived >= options.exit_after:
            return 0
        for listener in readable:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(1.0)
                try:
                    _answer(connection, ready=lived >= options.slow)
                except OSError:
                    continue


def _leave() -> None:
    """Fork a child that is in no group and no session of ours, and outlives us."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                time.sleep(3600)
        os._exit(0)
    os.wait()


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    return listener


def _answer(connection: socket.socket, *, ready: bool) -> None:
    head = connection.recv(4096).split(b" ")
    path = head[1] if len(head) > 1 else b""
    status, body = "404 Not Found", b"{}"
    if path == b"/v1/streaming/ready":
        status = "200 OK" if ready else "503 Service Unavailable"
    elif path == b"/v1/streaming/status":
        status, body = "200 OK", b'{"viewers": 1, "last_input_seconds_ago": 0}'
    connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)


if __name__ == "__main__":
    sys.exit(main())
