#!/usr/bin/env python3
"""A stand-in for podman's command, over the stand-in engine's socket (STANDIN_SOCKET).

It takes the options of podman-create(1) and the others that the launcher uses, and refuses any other, with podman's
exit statuses and words. Standard library only, to start fast.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any, NoReturn


def ask(call: str, **wants: Any) -> tuple[int, Any]:
    """POST to the stand-in engine; returns the status and the JSON body. By hand, for http.client imports slowly."""
    content = json.dumps(wants).encode()
    head = f"POST /standin/{call} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(os.environ["STANDIN_SOCKET"])
        connection.sendall(head.encode() + content)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    headers, _, body = answer.partition(b"\r\n\r\n")
    return int(headers.split(None, 2)[1]), json.loads(body) if body else None


def fail(message: str, code: int = 125) -> NoReturn:
    sys.stderr.write(f"Error: {message}\n")
    sys.exit(code)


def must(call: str, **wants: Any) -> Any:
    status, body = ask(call, **wants)
    if status == 304:
        return None
    if status >= 400:
        name = wants.get("name", "")
        words = f'no container with name or ID "{name}" found: no such container' if status == 404 else body["message"]
        if call == "create" and status == 404:
            words = f"{wants['config']['Image']}: image not known"
        fail(words)
    return body


def create(arguments: list[str]) -> None:
    import argparse

    parser = argparse.ArgumentParser("podman create", allow_abbrev=False)
    for option in ("name", "network", "pull", "restart", "stop-signal", "log-driver", "log-opt", "user", "workdir"):
        parser.add_argument(f"--{option}", default="")
    for option in ("cap-drop", "security-opt", "ipc"):
        parser.add_argument(f"--{option}", required=True)
    for option in ("memory", "memory-swap", "cpus"):
        parser.add_argument(f"--{option}", default="0")
    parser.add_argument("--pids-limit", type=int)
    parser.add_argument("--entrypoint", type=json.loads)
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--read-only-tmpfs", choices=["true", "false"], default="true")
    parser.add_argument("--stop-timeout", type=int)
    parser.add_argument("--shm-size", default="0b")
    parser.add_argument("--init", action="store_true")
    parser.add_argument("--http-proxy", choices=["true", "false"], default="true")
    for option in ("label", "env", "volume", "device", "tmpfs", "publish", "sysctl", "secret"):
        parser.add_argument(f"--{option}", action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    config = {
        "Image": given.image,
        "Cmd": given.command,
        "Entrypoint": given.entrypoint,
        "Env": [
            *given.env,
            *map(secret_variable, given.secret),
            *(["http_proxy=leaked"] if given.http_proxy == "true" else []),
        ],
        "User": given.user,
        "WorkingDir": given.workdir,
        "Labels": dict(label.split("=", 1) for label in given.label),
        "StopSignal": given.stop_signal,
        "StopTimeout": given.stop_timeout,
        "HostConfig": {
            "Binds": given.volume,
            "PortBindings": given.publish,
            "IpcMode": given.ipc,
            "CapDrop": [given.cap_drop.upper()],
            "SecurityOpt": [given.security_opt],
            "ReadonlyRootfs": given.read_only and given.read_only_tmpfs == "false",
            "Tmpfs": dict(directory.split(":", 1) for directory in given.tmpfs),
            "Memory": int(given.memory.removesuffix("b")),
            "MemorySwap": int(given.memory_swap.removesuffix("b")),
            "NanoCpus": int(float(given.cpus) * 1e9),
            "PidsLimit": given.pids_limit,
            "NetworkMode": given.network,
            "Init": given.init,
            "RestartPolicy": {"Name": given.restart},
            "LogConfig": {"Type": given.log_driver, "Config": given.log_opt},
            "ShmSize": int(given.shm_size.removesuffix("b")),
            "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": given.device}] if given.device else [],
        },
    }
    must("create", name=given.name, config=config)


def secret_variable(text: str) -> str:
    """Return the variable that an option like ``NAME,type=env,target=VARIABLE`` makes."""
    name, kind, target = text.split(",")
    assert kind == "type=env"
    return f"{target.removeprefix('target=')}={must('read_secret', name=name)}"


def logs(arguments: list[str]) -> None:
    import argparse
    from datetime import datetime

    parser = argparse.ArgumentParser("podman logs", allow_abbrev=False)
    parser.add_argument("--timestamps", action="store_true")
    parser.add_argument("--since", default="1970-01-01T00:00:00Z")
    parser.add_argument("--tail", default="all")
    parser.add_argument("name")
    given = parser.parse_args(arguments)
    since = int(datetime.fromisoformat(given.since.replace("Z", "+00:00")).timestamp())
    for time, number, text in must("logs", name=given.name, since=since, tail=given.tail):
        # podman writes the local zone's offset where Docker writes Z.
        line = f"{time.replace('Z', '+00:00')} {text}" if given.timestamps else text
        print(line, file=sys.stderr if number == 2 else sys.stdout)


def main(arguments: list[str]) -> None:
    match arguments:
        case ["info", "--format", "json"]:
            print(json.dumps(must("info")))
        case ["create", *rest]:
            create(rest)
        case ["logs", *rest]:
            logs(rest)
        case ["image", "exists", image]:
            sys.exit(1 if must("image", image=image) is None else 0)
        case ["image", "inspect", image]:
            print(json.dumps([{"Config": must("image", image=image)}]))
        case ["network", "create", "--opt", option, "--disable-dns", "--subnet", subnet, name]:
            must("create_network", name=name, options=option, subnet=subnet)
        case ["network", "rm", "--force", name]:
            must("remove_network", name=name)
        case ["secret", "create", name, "-"]:
            value = sys.stdin.read()
            if not value:
                fail("secret data must be larger than 0 and less than 512000 bytes")
            must("create_secret", name=name, value=value)
        case ["secret", "rm", *names]:
            for name in names:
                must("remove_secret", name=name)
        case ["secret", "ls", "--noheading", "--format", "{{.Name}}"]:
            print("\n".join(must("list_secrets")))
        case ["pull", "--quiet", image]:
            status, body = ask("pull", image=image)
            if status >= 400:
                fail(body["message"])
        case ["start", name]:
            must("start", name=name)
        case ["stop", "--ignore", "--time", seconds, name]:
            status, body = ask("stop", name=name, grace_s=float(seconds))
            if status >= 400 and status != 404:
                fail(body["message"])
        case ["kill", "--signal", "KILL", name]:
            must("kill", name=name)
        case ["rm", "--force", "--ignore", "--volumes", "--time", "0", name]:
            status, body = ask("remove", name=name)
            if status >= 400 and status != 404:
                fail(body["message"])
        case ["container", "inspect", name]:
            print(json.dumps([{"Name": name, "State": must("inspect", name=name)}]))
        case ["ps", "--all", *rest] if rest[-2:] == ["--format", "json"]:
            filters = rest[:-2]
            assert all(option == "--filter" for option in filters[::2])
            labels = [value.removeprefix("label=") for value in filters[1::2]]
            found = must("list", labels=labels)
            print(json.dumps([{**one, "Names": [name.lstrip("/") for name in one["Names"]]} for one in found]))
        case _:
            fail(f"unknown command {arguments}")


if __name__ == "__main__":
    main(sys.argv[1:])
