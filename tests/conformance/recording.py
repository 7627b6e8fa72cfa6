"""The recording: requests byte for byte, what grpc-gateway v2 answered, and how an answer is compared with it.

Compared are status, code, details, the decoded request, headers and the shape of bodies; the wording of errors only
where the server behind the gateway said it.
"""

from __future__ import annotations

import json
import math
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSWERS = Path(__file__).with_name("answers.jsonl")
_DEFAULTS: tuple[Any, ...] = (None, "", 0, False, [], {}, "0", "KIND_UNSPECIFIED")
_ADDED_BY_HOP = ("x-forwarded-for", "x-forwarded-host", "grpcgateway-content-type")
_COMPARED = ("status", "rpc", "request", "json", "text", "metadata", "upload", "received")
Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Case:
    """One request and the reference's answer."""

    id: str
    method: str
    target: str
    headers: Pairs
    body: str
    want: dict[str, Any]

    @property
    def group(self) -> str:
        """The part of the rules it belongs to."""
        return self.id.partition("/")[0]


def cases() -> list[Case]:
    """All of them. Lines end at \\n alone: answers hold U+2028."""
    found = []
    for line in ANSWERS.read_text().split("\n"):
        if line:
            row = json.loads(line)
            headers = [(key, value) for key, value in row["headers"]]
            found.append(
                Case(f"{row['group']}/{row['name']}", row["method"], row["target"], headers, row["body"], row["want"])
            )
    return found


def send(port: int, case: Case, timeout: float = 6.0) -> tuple[int, Pairs, str]:
    """One HTTP/1.1 request as it was recorded: status, headers, text."""
    data = case.body.encode()
    given = {key.lower() for key, _ in case.headers}
    lines = [f"{case.method} {case.target} HTTP/1.1"]
    if "host" not in given:
        lines.append("Host: gw.test")
    lines += ["Connection: close", *(f"{key}: {value}" for key, value in case.headers)]
    sized = given & {"content-length", "transfer-encoding"}
    if not sized and (data or case.method in ("POST", "PUT", "PATCH")):
        lines.append(f"Content-Length: {len(data)}")
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as peer:
        peer.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + data)
        answer = b""
        while chunk := peer.recv(65536):
            answer += chunk
    head, _, rest = answer.partition(b"\r\n\r\n")
    status_line, *rows = head.decode("latin1").split("\r\n")
    headers = [(key.lower(), value) for key, _, value in (row.partition(": ") for row in rows)]
    if dict(headers).get("transfer-encoding") == "chunked":
        rest = dechunk(rest)
    return int(status_line.split()[1]), headers, rest.decode("utf-8", "replace")


def dechunk(data: bytes) -> bytes:
    """The body of a chunked answer."""
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size.split(b";")[0] or b"0", 16)
        if not length:
            break
        out, data = out + data[:length], data[length + 2 :]
    return out


def wanted(case: Case) -> dict[str, Any]:
    """What an answer must equal."""
    answer = {key: _numbers(case.want[key]) for key in _COMPARED if key in case.want}
    pairs = [(key.lower(), value) for key, value in case.want["headers"]]
    return _finish(case, answer, pairs)


def observed(case: Case, status: int, headers: Pairs, text: str) -> dict[str, Any]:
    """An answer in the same form."""
    answer: dict[str, Any] = {"status": status}
    try:
        parsed = json.loads(text)
    except ValueError:
        answer["text"] = text
        return _finish(case, answer, headers)
    if isinstance(parsed, dict) and "method" in parsed and "request" in parsed:
        answer |= {"rpc": parsed["method"], "request": _numbers(_prune(parsed["request"] or {}))}
        seen = dict(parsed.get("metadata") or {})
        if case.group != "header":
            for key in _ADDED_BY_HOP:
                seen.pop(key, None)
        if seen:
            answer["metadata"] = seen
        answer |= {key: parsed[key] for key in ("upload", "received") if parsed.get(key)}
    else:
        answer["json"] = _numbers(parsed)
    return _finish(case, answer, headers)


def _finish(case: Case, answer: dict[str, Any], headers: Pairs) -> dict[str, Any]:
    error = answer.get("json")
    if answer["status"] >= 400 and isinstance(error, dict) and "error" not in error and case.group != "error":
        # The gateway said it, since what the server says on a stream is wrapped. Any words will do.
        error["message"] = bool(error["message"])
    for name in ("grpc-metadata-x-head", "www-authenticate", "content-type"):
        if case.method != "HEAD" or name != "content-type":
            answer[name] = sorted(value for key, value in headers if key == name)
    if case.method == "HEAD":
        answer.pop("text", None)
    elif "text" in answer:
        with suppress(ValueError):
            answer["text"] = [json.loads(line) for line in answer["text"].split("\n") if line]
    return answer


def _prune(value: Any) -> Any:
    """Drop members that hold a default, as the recording does; both gateways print them all."""
    if isinstance(value, dict):
        pruned = {key: _prune(item) for key, item in value.items()}
        return {key: item for key, item in pruned.items() if item not in _DEFAULTS}
    return [_prune(item) for item in value] if isinstance(value, list) else value


def _numbers(value: Any) -> Any:
    """1.0 and 1 are the same JSON number."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value
