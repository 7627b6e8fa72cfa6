"""A stand-in for Kit: takes its flags strictly, listens as it does, and is ready late.

    python standin_kit.py 106|107|108|isaac-6 APP.kit --flag …

Without the first argument it is what STANDIN_KIT in its environment says.

Unlike the real Kit, which ignores a setting that it does not know, this one refuses it with exit status 1: a recipe
with a misspelt flag must fail here. Like the real one it takes the next port when its own is taken (with a warning; the
control API only where it is allowed to), and opens the media port only for a viewer (here: never).

Its control API has the published bodies: `GET /v1/streaming/ready`, 503 until it is ready, and after a session that
nobody has resumed; `POST /v1/streaming/creds`, `POST /v1/streaming/endsession`.

A player that dials `/sign_in`, below any prefix, is greeted and sent an offer, as it was recorded with Kit 110.1; it is
one player at a time, and another request there is 501. A session is what a player begins that answers the offer.

Knobs, in its environment:

* STANDIN_REPORT: a file that it writes its settings to as JSON.
* STANDIN_JOURNAL: a file that it appends what it is asked to, an object of JSON a line: `handshake`, `message`, `creds`
  or `endsession`.
* STANDIN_READY_FILE: a file whose appearance makes it ready; STANDIN_READY_AFTER: how many seconds it takes. At once
  without both. STANDIN_STATUS: what it says until then.
* STANDIN_OFFER_AFTER: how many seconds an offer takes.
* STANDIN_MODES, separated by blanks: `silent` offers players nothing, `audio` offers them no picture, `deaf` takes
  their connection and says nothing at all, `refuses` refuses their handshake, `no-subprotocol` chooses none that they
  offer, `fails` ends with status 3 as soon as it listens.
* STANDIN_LEAVES: it ends players' connections, and says this as its reason.
* STANDIN_CREDS: it takes no credentials of a relay, and says this as its reason.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import itertools
import json
import os
import signal
import socket
import socketserver
import sys
import threading
import time
import urllib.parse
from typing import NoReturn

HTTP = "/exts/omni.services.transport.server.http"
COMMON = {
    "/app/auto_load_usd": str,
    "/app/fastShutdown": bool,
    "/app/livestream/allowResize": bool,
    f"{HTTP}/allow_port_range": bool,
    f"{HTTP}/host": str,
    f"{HTTP}/port": int,
    "/physics/cudaDevice": int,
    "/renderer/activeGpu": int,
    "/renderer/multiGpu/autoEnable": bool,
    "/renderer/multiGpu/enabled": bool,
}
NVCF = "/app/livestream/nvcf"
PRIMARY = "/exts/omni.kit.livestream.app/primaryStream"
SESSION = "/exts/omni.services.livestream.session"
KIT_106 = {
    **COMMON,
    "/app/livestream/fixedHostPort": int,
    "/app/livestream/maxHostPort": int,
    "/app/livestream/minHostPort": int,
    "/app/livestream/port": int,
    f"{NVCF}/quitOnSessionEnded": bool,
    f"{NVCF}/sessionResumeTimeoutSeconds": int,
    f"{NVCF}/waitForCustomReadyEvent": bool,
}
KIT_108 = {
    **COMMON,
    f"{PRIMARY}/allowDynamicResize": bool,
    f"{PRIMARY}/enableEventTracing": bool,
    f"{PRIMARY}/publicIp": str,
    f"{PRIMARY}/signalPort": int,
    f"{PRIMARY}/streamPort": int,
    f"{PRIMARY}/streamType": str,
    f"{PRIMARY}/targetFps": int,
    f"{SESSION}/quitOnSessionEnded": bool,
    f"{SESSION}/resumeTimeoutSeconds": int,
    f"{SESSION}/waitForSessionReadyEvent": bool,
}
SETTINGS: dict[str, dict[str, type]] = {
    "106": KIT_106,
    "107": {
        **KIT_106,
        "/app/livestream/allowDynamicResize": bool,
        "/app/livestream/publicEndpointAddress": str,
        "/app/livestream/publicEndpointPort": int,
    },
    "108": KIT_108,
    # Its applications read no setting that opens a stage.
    "isaac-6": {path: kind for path, kind in KIT_108.items() if path != "/app/auto_load_usd"},
}
OLD, NEW = {"omni.services.livestream.nvcf"}, {"omni.kit.livestream.app", "omni.services.livestream.session"}
EXTENSIONS = {"106": OLD, "107": OLD, "108": NEW, "isaac-6": NEW}


def named(generation: str, old: str, new: str) -> str:
    return old if EXTENSIONS[generation] is OLD else new


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


def listen(name: str, port: int, host: str = "0.0.0.0", *, wander: bool = True) -> socket.socket:
    """Listen on the port or, as Kit does, on the next one that is free."""
    while True:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError:
            bound.close()
            if not wander:
                refuse(f"{name} port {port} is taken")
            print(f"[Warning] {name} port {port} is taken, trying {port + 1}", flush=True)
            port += 1
            continue
        bound.listen()
        return bound


def modes() -> list[str]:
    return os.environ.get("STANDIN_MODES", "").split()


def noted(**what: object) -> None:
    """Append a line to the journal, where there is one."""
    if path := os.environ.get("STANDIN_JOURNAL"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")


class Session:
    """What the control API says, and depends on players."""

    def __init__(self, resume_s: float) -> None:
        self._resume_s, self._began = resume_s, time.monotonic()
        self._left: float | None = None
        self.player: Player | None = None
        """The one that has answered its offer."""

    def status(self) -> tuple[int, str]:
        gate, after = os.environ.get("STANDIN_READY_FILE"), float(os.environ.get("STANDIN_READY_AFTER", "0"))
        waited = time.monotonic() - self._began
        if waited < after or (gate is not None and not os.path.exists(gate)):
            return 503, os.environ.get("STANDIN_STATUS", "Rtx not ready")
        if self.player is not None:
            return 200, "Streaming session active (keep alive)"
        if self._left is None:
            return 200, "Ready for connection"
        if time.monotonic() - self._left < self._resume_s:
            return 200, "Awaiting session resume (keep alive)"
        return 503, "Streaming session ended (recycle instance)"

    def begin(self, player: Player) -> None:
        self.player = player

    def leave(self, player: Player) -> None:
        if self.player is player:
            self.player, self._left = None, time.monotonic()

    def end(self, *, gracefully: bool) -> str:
        player, self.player = self.player, None
        if player is None:
            return "COMPLETE"
        self._left = time.monotonic() - (0 if gracefully else self._resume_s)
        player.hang_up("the session was ended")
        return "AWAITING_RESUME" if gracefully else "COMPLETE"


class Control(http.server.BaseHTTPRequestHandler):
    """The control API."""

    session: Session

    def do_GET(self) -> None:
        if self.path == "/v1/streaming/ready":
            status, text = self.session.status()
            self.answer(status, {"statusMessage": text})
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        known = {
            "/v1/streaming/creds": {"stunIp": str, "stunPort": int, "username": str, "password": str},
            "/v1/streaming/endsession": {"sessionId": str, "gracefulShutdown": bool},
        }
        wanted = known.get(self.path)
        if wanted is None:
            self.answer(404, {"detail": "Not Found"})
            return
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        except ValueError:
            body = None
        given = body if isinstance(body, dict) else {}
        wrong = [name for name, kind in wanted.items() if type(given.get(name)) is not kind]
        if wrong:
            problems = [{"loc": ["body", name], "msg": "is not valid", "type": "type_error"} for name in wrong]
            self.answer(422, {"detail": problems})
            return
        noted(**{self.path.rpartition("/")[2]: given})
        if self.path == "/v1/streaming/creds":
            problem = os.environ.get("STANDIN_CREDS", "")
            self.answer(200, {"success": not problem, "errorMessage": problem})
        else:
            self.answer(200, {"sessionStatus": self.session.end(gracefully=given["gracefulShutdown"])})

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the class above
        pass


class Player(socketserver.StreamRequestHandler):
    """One connection to the signalling port (RFC 6455), as it was recorded with Kit 110.1."""

    session: Session
    alone = threading.Lock()
    numbers = itertools.count(3)

    def setup(self) -> None:
        super().setup()
        self.writing, self.gone = threading.Lock(), threading.Event()
        self.acknowledged = itertools.count(1)

    def handle(self) -> None:
        _, path, *_ = [*self.rfile.readline().decode("latin-1").split(), "", ""]
        target = urllib.parse.urlsplit(path)
        headers = {}
        while line := self.rfile.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if not target.path.endswith("/sign_in") or "sec-websocket-key" not in headers:
            self.refuse("501 Not Implemented")
        elif "refuses" in modes():
            self.refuse("500 Internal Server Error")
        elif not Player.alone.acquire(blocking=False):
            self.refuse("503 NVST_R_BUSY")
        else:
            try:
                noted(handshake={"path": target.path, "query": target.query, "headers": headers})
                print(f"sign_in {target.query} {headers.get('sec-websocket-protocol', '')}", flush=True)
                self.open(headers)
                self.talk(dict(urllib.parse.parse_qsl(target.query)))
            except (OSError, ValueError):
                pass  # it left
            finally:
                self.gone.set()
                self.session.leave(self)
                Player.alone.release()

    def refuse(self, status: str) -> None:
        self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    def open(self, headers: dict[str, str]) -> None:
        key = headers["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines.append(f"Sec-WebSocket-Accept: {base64.b64encode(hashlib.sha1(key).digest()).decode()}")
        offered = headers.get("sec-websocket-protocol", "")
        if offered and "no-subprotocol" not in modes():
            lines.append(f"Sec-WebSocket-Protocol: {offered.split(',')[0].strip()}")
        self.wfile.write("\r\n".join([*lines, "", ""]).encode())

    def talk(self, query: dict[str, str]) -> None:
        if "deaf" in modes():
            while self.read() is not None:
                pass
            return
        peer = {"connected": True, "peer_role": 0, "version": int(query.get("version", "2"))}
        number = next(self.numbers)
        self.say({"peer_info": {**peer, "id": number, "name": query.get("peer_id", "")}})
        self.say({"peer_info": {**peer, "id": 1, "name": "OneSdkServer-8726811140914326317"}})
        if reason := os.environ.get("STANDIN_LEAVES", ""):
            self.hang_up(reason)
            return
        threading.Thread(target=self.beat, daemon=True).start()
        if "silent" not in modes():
            self.gone.wait(float(os.environ.get("STANDIN_OFFER_AFTER", "0")))
            media = ["audio"] if "audio" in modes() else ["audio", "video"]
            kinds = "".join(f"m={kind} 9 UDP/TLS/RTP/SAVPF 96\r\n" for kind in media)
            sdp = f"v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{kinds}"
            self.say({"peer_msg": {"from": 1, "to": number, "msg": json.dumps({"type": "offer", "sdp": sdp})}})
        while (message := self.read()) is not None:
            noted(message=message)
            said = message.get("peer_msg") if isinstance(message, dict) else None
            if said and json.loads(said["msg"]).get("type") == "answer":
                self.session.begin(self)

    def beat(self) -> None:
        with contextlib.suppress(OSError):
            while not self.gone.wait(5):
                self.frame(0x81, b'{"hb":1}')

    def say(self, message: dict[str, object]) -> None:
        self.frame(0x81, json.dumps({"ackid": next(self.acknowledged), **message}).encode())

    def frame(self, head: int, payload: bytes) -> None:
        size = len(payload)
        length = bytes([size]) if size < 126 else bytes([126]) + size.to_bytes(2, "big")
        with self.writing:
            self.wfile.write(bytes([head]) + length + payload)

    def hang_up(self, reason: str) -> None:
        with contextlib.suppress(OSError):
            self.frame(0x88, (1008).to_bytes(2, "big") + reason.encode())
            self.connection.shutdown(socket.SHUT_WR)

    def read(self) -> object:
        """Return the next message; None once the player has gone."""
        while len(head := self.rfile.read(2)) == 2:
            size = head[1] & 0x7F
            if size >= 126:
                size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), "big")
            mask = self.rfile.read(4)
            payload = bytes(each ^ mask[at % 4] for at, each in enumerate(self.rfile.read(size)))
            kind = head[0] & 0x0F
            if kind == 0x8:
                self.frame(0x88, payload[:2])
                return None
            if kind == 0x9:
                self.frame(0x8A, payload)
            elif kind == 0x1:
                return json.loads(payload)
        return None


def serve(listener: socket.socket, handler: type[socketserver.BaseRequestHandler]) -> None:
    server = socketserver.ThreadingTCPServer(listener.getsockname(), handler, bind_and_activate=False)
    server.daemon_threads = True
    server.socket.close()
    server.socket = listener
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main(arguments: list[str]) -> int:
    if arguments[0].endswith(".kit"):
        arguments = [os.environ["STANDIN_KIT"], *arguments]
    generation, kit_file, *flags = arguments
    if not kit_file.endswith(".kit"):
        refuse(f"{kit_file!r} is no .kit file")
    settings = parse(generation, flags)
    print(f"Opening {settings.get('/app/auto_load_usd', '')!r}", flush=True)
    if report := os.environ.get("STANDIN_REPORT"):
        with open(report, "w", encoding="utf-8") as file:
            json.dump(settings, file)
    signalling = listen("signal", int(settings[named(generation, "/app/livestream/port", f"{PRIMARY}/signalPort")]))
    host, wander = str(settings.get(f"{HTTP}/host", "0.0.0.0")), bool(settings.get(f"{HTTP}/allow_port_range", True))
    control = listen("http", int(settings[f"{HTTP}/port"]), host, wander=wander)
    resume = named(generation, f"{NVCF}/sessionResumeTimeoutSeconds", f"{SESSION}/resumeTimeoutSeconds")
    Control.session = Player.session = Session(float(settings.get(resume, 30)))
    serve(control, Control)
    serve(signalling, Player)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
    print(f"Streaming server started on {signalling.getsockname()[1]}.", flush=True)
    if "fails" in modes():
        print("[Fatal] the stand-in was told to fail", flush=True)
        return 3
    ended.wait()
    print("Shutting down.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
