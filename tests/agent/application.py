"""A small application that keeps the launch contract, run as a process: ``python application.py HTTP SIGNAL FILE``.

``FILE`` is JSON that may change while it runs: ``ready`` (bool, or the status to answer with), ``says`` (its words
then), ``hangs`` (bool: requests are not answered), ``http_offset`` and ``no_signal`` (where it listens instead, or not
at all), ``status`` (the body of /v1/streaming/status or null), ``exit`` (a status to exit with), ``secret_header`` (in
which header the launch's secret must be, if any), ``last_words`` (a line to print before), ``notice`` (what a notice is
answered with, 404 unless said; each is printed), ``creds`` (the status and body that the credentials of a relay are
answered with; each is printed), ``open`` (what a stage at ``/open`` is answered with, 200 unless said; each is
printed).
Without FILE there it is ready at once.
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def wishes(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def main() -> None:
    http, signalling, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    if wishes(path).get("ignore_stop"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = wishes(path)
            while wishes(path).get("hangs"):
                time.sleep(0.02)
            if not self.shows_secret():
                self.answer(401, {})
            elif self.path == "/v1/streaming/ready":
                ready = wanted.get("ready", True)
                self.answer(200 if ready is True else ready or 503, {"statusMessage": wanted.get("says", "")})
            elif self.path == "/v1/streaming/status" and wanted.get("status") is not None:
                self.answer(200, wanted["status"])
            else:
                self.answer(404, {})

        def shows_secret(self) -> bool:
            """Whether the request has the launch's secret, where the file names its header (``secret_header``)."""
            header = wishes(path).get("secret_header")
            session = json.loads(Path(os.environ["FOOTLIGHTS_SESSION_FILE"]).read_bytes())
            return not header or self.headers.get(header) == session["FOOTLIGHTS_LAUNCH_SECRET"]

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if not self.shows_secret():
                self.answer(401, {})
            elif self.path == "/open":
                print("stage", body, flush=True)
                self.answer(wishes(path).get("open", 200), {"why": body})
            elif self.path == "/v1/streaming/creds":
                print("creds", body, flush=True)
                self.answer(*wishes(path).get("creds", (200, {"success": True, "errorMessage": None})))
            elif self.path == "/v1/streaming/notice":
                print("notice", body, flush=True)
                self.answer(wishes(path).get("notice", 404), {})
            else:
                self.answer(404, {})

        def answer(self, code: int, body: object) -> None:
            content = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    print(f"hello from {os.getpid()}", flush=True)
    print("secret is", os.environ.get("AGENT_SECRET", "absent"), flush=True)
    socketserver.TCPServer.allow_reuse_address = True
    http += wishes(path).get("http_offset", 0)
    servers = [ThreadingHTTPServer(("127.0.0.1", http), Handler)]
    if not wishes(path).get("no_signal"):
        servers.append(ThreadingHTTPServer(("127.0.0.1", signalling), Handler))
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    said = 0
    while True:
        wanted = wishes(path)
        for line in wanted.get("say", [])[said:]:
            print(line, flush=True)
            said += 1
        if "exit" in wanted:
            if "last_words" in wanted:
                print(wanted["last_words"], flush=True)
            os._exit(wanted["exit"])
        time.sleep(0.02)


if __name__ == "__main__":
    main()
