"""A relay to JAX's coordination service, so that its end is not the end of this process too.

JAX's client calls abort() as soon as its connection to the service closes, which it does when the first process dies.
Behind a relay it never closes: processes.py learns of the death by itself, says so, and ends the process.
"""

import contextlib
import socket
import threading
import time

_PAUSE_SECONDS = 0.1  # between tries, while the service is not there yet
_PIECE = 1 << 16  # bytes

_open: list[socket.socket] = []  # connections of JAX's client, which must not be collected: that closes them


def start(host: str, port: int) -> str:
    """Returns the address (HOST:PORT) on this machine at which the service at `host`, `port` is reached from now on."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener, host, port), daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def _accept(listener: socket.socket, host: str, port: int) -> None:
    while True:
        client, _ = listener.accept()
        _open.append(client)
        service = _reached(host, port)
        for source, target in ((client, service), (service, client)):
            threading.Thread(target=_forward, args=(source, target), daemon=True).start()


def _reached(host: str, port: int) -> socket.socket:
    while True:
        with contextlib.suppress(OSError):
            return socket.create_connection((host, port))
        time.sleep(_PAUSE_SECONDS)


def _forward(source: socket.socket, target: socket.socket) -> None:
    """Hands on what comes, until nothing does; neither connection is closed then."""
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
