"""A stand-in for Kit: takes its flags strictly, listens as it does, and is ready late.

    python standin_kit.py 106|108 APP.kit --flag …

Unlike the real Kit, which ignores a setting that it does not know, this one refuses it with exit status 1: a recipe
with a misspelt flag must fail here. Like the real one it takes the next port when its own is taken (with a warning),
opens the media port only for a viewer (here: never), and answers `/v1/streaming/ready` with 503 until it is ready.

A player that dials `/sign_in` is greeted and sent an offer, one player at a time; another request there is 501.

Knobs, in its environment: STANDIN_READY_FILE, a file whose appearance makes it ready (at once without one);
STANDIN_REPORT, a file that it writes its settings to as JSON; STANDIN_SILENT, with which it offers players nothing;
STANDIN_LEAVES, with which it ends their connections, and says this as its reason.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import os
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

COMMON = {
    "/app/auto_load_usd": str,
    "/app/fastShutdown": bool,
    "/exts/omni.services.transport.server.http/port": int,
    "/physics/cudaDevice": int,
    "/renderer/activeGpu": int,
    "/renderer/multiGpu/autoEnable": bool,
    "/renderer/multiGpu/enabled": bool,
}
PRIMARY = "/exts/omni.kit.livestream.app/primaryStream"
SESSION = "/exts/omni.services.livestream.session"
SETTINGS: dict[str, dict[str, type]] = {
    "106": {
        **COMMON,
        "/app/livestream/fixedHostPort": int,
        "/app/livestream/port": int,
        "/app/livestream/publicEndpointAddress": str,
        "/app/livestream/nvcf/quitOnSessionEnded": bool,
        "/app/livestream/nvcf/sessionResumeTimeoutSeconds": int,
        "/app/livestream/nvcf/waitForCustomReadyEvent": bool,
    },
    "108": {
        **COMMON,
        f"{PRIMARY}/enableEventTracing": bool,
        f"{PRIMARY}/publicIp": str,
        f"{PRIMARY}/signalPort": int,
        f"{PRIMARY}/streamPort": int,
        f"{PRIMARY}/streamType": str,
        f"{PRIMARY}/targetFps": int,
        f"{SESSION}/quitOnSessionEnded": bool,
        f"{SESSION}/resumeTimeoutSeconds": int,
        f"{SESSION}/waitForSessionReadyEvent": bool,
    },
}
EXTENSIONS = {
    "106": {"omni.services.livestream.nvcf"},
    "108": {"omni.kit.livestream.app", "omni.services.livestream.session"},
}
SIGNAL_PORT = {"106": "/app/livestream/port", "108": f"{PRIMARY}/signalPort"}
HTTP_PORT = "/exts/omni.services.transport.server.http/port"


def refuse(message: str) -> NoReturn:
    print(f"[Error] {message}", flush=True)
    sys.exit(1)


def parse(generation: str, arguments: list[str]) -> dict[str, str | int | bool]:
    """Read Kit's flags into settings by path; refuse what the generation does not have."""
    settings: dict[str, str | int | bool] = {}
    enabled = set()
    waiting = iter(arguments)
    for flag in waiting:
        if flag in ("--no-window", "--allow-root"):
            continue
        if flag in ("--ext-folder", "--enable", "--exec"):
            value = next(waiting, "")
            if flag == "--enable":
                enabled.add(value)
            continue
        path, equals, value = flag.removeprefix("--").partition("=")
        kind = SETTINGS[generation].get(path)
        if kind is None or not equals:
            refuse(f"unknown setting {flag!r}")
        if kind is bool and value not in ("true", "false"):
            refuse(f"{flag!r} is neither true nor false")
        if kind is int and not value.isdigit():
            refuse(f"{flag!r} is not a number")
        settings[path] = value == "true" if kind is bool else kind(value)
    if enabled != EXTENSIONS[generation]:
        refuse(f"extensions {sorted(enabled)} are not those of a stream")
    return settings


def listen(name: str, port: int) -> socket.socket:
    """Listen on the port or, as Kit does, on the next one that is free."""
    while True:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(("0.0.0.0", port))
        except OSError:
            bound.close()
            print(f"[Warning] {name} port {port} is taken, trying {port + 1}", flush=True)
            port += 1
            continue
        bound.listen()
        return bound


def is_ready() -> bool:
    path = os.environ.get("STANDIN_READY_FILE")
    return path is None or os.path.exists(path)


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path != "/v1/streaming/ready":
            status, body = 404, b'{"detail": "Not Found"}'
        elif is_ready():
            status, body = 200, b'{"status": "Ready for connection"}'
        else:
            status, body = 503, b'{"status": "Not ready"}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the class above
        pass


class Player(socketserver.StreamRequestHandler):
    """One connection to the signalling port (RFC 6455), as it was recorded with Kit 110.1."""

    alone = threading.Lock()

    def handle(self) -> None:
        request = self.rfile.readline().split()
        headers = {}
        while line := self.rfile.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if b"/sign_in?" not in b"".join(request[1:2]) or "sec-websocket-key" not in headers:
            self.wfile.write(b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n")
            return
        if not Player.alone.acquire(blocking=False):
            self.wfile.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
            return
        with Player.alone_again():
            key = headers["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(key).digest()).decode()
            self.wfile.write(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
            self.say({"ackid": 1, "peer_info": {"id": 3, "name": "peer-0"}})
            self.say({"ackid": 2, "peer_info": {"id": 1, "name": "OneSdkServer-0"}})
            if reason := os.environ.get("STANDIN_LEAVES", "").encode():
                self.wfile.write(bytes([0x88, len(reason) + 2, 0x03, 0xF0]) + reason)
                return
            if "STANDIN_SILENT" not in os.environ:
                offer = json.dumps({"type": "offer", "sdp": "v=0"})
                self.say({"ackid": 3, "peer_msg": {"from": 1, "msg": offer}})
            while self.rfile.read(1):
                pass

    @staticmethod
    @contextlib.contextmanager
    def alone_again() -> Iterator[None]:
        try:
            yield
        finally:
            Player.alone.release()

    def say(self, message: object) -> None:
        text = json.dumps(message).encode()
        head = bytes([0x81, len(text)]) if len(text) < 126 else bytes([0x81, 126]) + len(text).to_bytes(2, "big")
        self.wfile.write(head + text)


def main(arguments: list[str]) -> int:
    generation, kit_file, *flags = arguments
    if not kit_file.endswith(".kit"):
        refuse(f"{kit_file!r} is no .kit file")
    settings = parse(generation, flags)
    if report := os.environ.get("STANDIN_REPORT"):
        with open(report, "w", encoding="utf-8") as file:
            json.dump(settings, file)
    signalling = listen("signal", int(settings[SIGNAL_PORT[generation]]))
    health = listen("http", int(settings[HTTP_PORT]))
    server = socketserver.ThreadingTCPServer(health.getsockname(), Health, bind_and_activate=False)
    server.daemon_threads = True
    server.socket.close()
    server.socket = health
    threading.Thread(target=server.serve_forever, daemon=True).start()
    door = socketserver.ThreadingTCPServer(signalling.getsockname(), Player, bind_and_activate=False)
    door.daemon_threads = True
    door.socket.close()
    door.socket = signalling
    threading.Thread(target=door.serve_forever, daemon=True).start()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
    print(f"Streaming server started on {signalling.getsockname()[1]}.", flush=True)
    ended.wait()
    print("Shutting down.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
