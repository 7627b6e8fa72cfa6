"""An application that keeps the launch contract but for its faults: ``python application.py S M H STAGE FAULT...``.

The ports of signalling, media and HTTP, the stage, and the names of its faults; a certification tells each.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

from websockets.sync.server import ServerConnection, serve

from footlights.protocol.launch_secrets import CHALLENGE, PROOF, Proofs

FAULTS = set(sys.argv[5:])
PROOFS = Proofs(json.loads(Path(os.environ["FOOTLIGHTS_SESSION_FILE"]).read_bytes())["FOOTLIGHTS_LAUNCH_SECRET"])


class Handler(BaseHTTPRequestHandler):
    viewers = 0

    def do_GET(self) -> None:
        if self.path == "/whep":
            self.answer(401, {}, {CHALLENGE: PROOFS.challenge})
        elif self.path == "/v1/streaming/status" and "no_status" in FAULTS:
            self.answer(404, {})
        elif self.path in ("/v1/streaming/ready", "/v1/streaming/status"):
            self.answer(200, {"viewers": Handler.viewers, "last_input_seconds_ago": 0})
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/streaming/notice":
            self.answer(404 if "no_notice" in FAULTS else 204, {})
        elif "open_door" not in FAULTS and not PROOFS.accept(self.headers.get(PROOF, ""), "POST", self.path):
            self.answer(401, {}, {CHALLENGE: PROOFS.challenge})
        elif "one_viewer" in FAULTS and Handler.viewers:
            self.answer(409, {"message": "somebody is here"})
        else:
            Handler.viewers += 1
            self.answer(201, {}, {"Location": f"/whep/{Handler.viewers}"})

    def do_DELETE(self) -> None:
        Handler.viewers -= 1
        self.answer(200, {})
        if "ends_with_viewers" in FAULTS:
            os._exit(3)

    def answer(self, code: int, body: object, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def wait(viewer: ServerConnection) -> None:
    viewer.recv()


def main() -> None:
    signal_port, media_port, http_port = (int(text) for text in sys.argv[1:4])
    stage = Path(sys.argv[4])
    if not stage.exists() and "any_stage" not in FAULTS:
        if "no_reason" not in FAULTS:
            print('FOOTLIGHTS_FAILURE: {"reason": "STAGE_NOT_FOUND", "message": "there is none"}', flush=True)
        sys.exit(4)
    if "daemon" in FAULTS and os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "no_end" in FAULTS else lambda *_: os._exit(0))
    media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    media.bind(("127.0.0.1", media_port))
    servers = [ThreadingHTTPServer(("127.0.0.1", http_port), Handler)]
    if "websocket" in FAULTS:
        door = serve(wait, "127.0.0.1", signal_port)
        threading.Thread(target=door.serve_forever, daemon=True).start()
    elif "no_signal" not in FAULTS:
        servers.append(ThreadingHTTPServer(("127.0.0.1", signal_port), Handler))
    if "other_port" in FAULTS:
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    late = time.monotonic() + 1.0
    while True:
        if "late_daemon" in FAULTS and time.monotonic() > late:
            if os.fork():
                time.sleep(1.0)
                os._exit(0)
            FAULTS.clear()
        if "flood" in FAULTS:
            print("x" * 65536, flush=True)
        time.sleep(0.01)


if __name__ == "__main__":
    main()
