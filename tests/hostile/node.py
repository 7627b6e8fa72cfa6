"""What stands on the node for the attackers to attack: ``python3 -c SOURCE …``, the standard library only.

``agent SECRET PORT ABSTRACT MARK``: a process that holds a key in its memory and environment, and answers with SECRET
on the node's loopback and on an abstract socket. ``ask PORT``: what answers on a port of the loopback, TCP and UDP.
"""

import os
import socket
import sys
import threading


def serve(listener: socket.socket, text: bytes) -> None:
    listener.listen()
    while True:
        connection, _ = listener.accept()
        connection.sendall(text)
        connection.close()


def agent(secret: str, port: str, abstract: str, _mark: str) -> None:
    tcp, unix = socket.socket(), socket.socket(socket.AF_UNIX)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind(("127.0.0.1", int(port)))
    unix.bind("\0" + abstract)
    for listener in (tcp, unix):
        threading.Thread(target=serve, args=(listener, secret.encode()), daemon=True).start()
    print(os.getpid(), flush=True)
    sys.stdin.read()  # until the judge ends


def ask(port: str) -> None:
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    for client in (tcp, udp):
        client.settimeout(1.0)
        try:
            client.connect(("127.0.0.1", int(port)))
            client.send(b"who are you?")
            print(client.recv(4096).decode("utf-8", "replace"))
        except OSError as error:
            print(f"({error})")


if __name__ == "__main__":
    if sys.argv[1] == "agent":
        agent(*sys.argv[2:])
    else:
        ask(*sys.argv[2:])
