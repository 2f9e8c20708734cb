"""How the processes of a study find each other: the first one listens, and every other one connects to it.

Before JAX is asked for anything, so that who is missing is said in a line: JAX itself would end in abort().
"""

import contextlib
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from finetune.errors import UserError
from finetune.hosts.versions import versions

JOIN_SECONDS = 45.0  # in which the first process answers the others
_GATHER_SECONDS = 300.0  # in which the others have come to the first one
_TELL_SECONDS = 10.0  # between lines that say for whom it waits
_HELLO_SECONDS, _HELLO_BYTES = 5.0, 1000
_PAUSE_SECONDS = 0.2

# The connection of a machine that does not answer any more is closed by the system after about half a minute.
_IDLE_SECONDS, _PROBE_SECONDS, _PROBES, _UNANSWERED_MILLISECONDS = 10, 5, 4, 30_000
_KEEPALIVE = (
    ("TCP_KEEPIDLE", _IDLE_SECONDS),
    ("TCP_KEEPALIVE", _IDLE_SECONDS),  # what macOS calls it
    ("TCP_KEEPINTVL", _PROBE_SECONDS),
    ("TCP_KEEPCNT", _PROBES),
    ("TCP_USER_TIMEOUT", _UNANSWERED_MILLISECONDS),
    ("TCP_NODELAY", 1),
)

# Environment variables by which JAX finds the other processes of a cluster: their number, where it is more than 1.
_CLUSTER = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")


class Place(NamedTuple):
    """Where the processes of a study meet, how many they are, and which of them this one is."""

    coordinator: str  # HOST:PORT of the first one
    processes: int
    process: int

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; raises UserError for a coordinator that has none."""
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise UserError(f"--coordinator is {self.coordinator!r}, allowed: HOST:PORT of the first process")
        return host.strip("[]"), int(port)


class Link:
    """Messages between this process and another one; each is a header for JSON, and bytes."""

    def __init__(self, connected: socket.socket, process: int = 0):
        connected.settimeout(None)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.process = process  # the other one
        self.words: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()  # what it has said, and about what
        self.is_over = False  # whether it has said that it leaves
        self._connection = Connection(connected.detach())
        self._sends = threading.Lock()

    def send(self, header: dict[str, Any], content: Any = b"") -> None:
        """Sends a message; one that does not arrive is of a process that has gone, which whoever receives will find."""
        with self._sends, contextlib.suppress(OSError):
            self._connection.send_bytes(json.dumps(header).encode())
            self._connection.send_bytes(content)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Returns the next message; raises OSError or EOFError when the other process has gone."""
        return json.loads(self._connection.recv_bytes()), self._connection.recv_bytes()

    def hello(self, seconds: float) -> dict[str, Any]:
        """Returns the header of a first message, {} if none comes that finetune sends."""
        with contextlib.suppress(OSError, EOFError, ValueError):
            if self._connection.poll(seconds):
                header = json.loads(self._connection.recv_bytes(_HELLO_BYTES))
                self._connection.recv_bytes(_HELLO_BYTES)
                if isinstance(header, dict) and "versions" in header:
                    return header
        return {}

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()


def find_place(coordinator: str, processes: int, process: int) -> Place | None:
    """Returns where to meet, as the flags say or as the cluster's environment does; None if this process is alone.

    Raises UserError for flags that do not fit together.
    """
    if coordinator:
        if not 0 <= process < processes:
            raise UserError(f"--process is {process}, allowed: 0 to --processes - 1 = {processes - 1}")
        return Place(coordinator, processes, process) if processes > 1 else None
    if not any(os.environ.get(name, "1") not in ("", "1") for name in _CLUSTER):
        return None
    from jax._src.clusters import ClusterEnv  # JAX has no public name for what it finds

    found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, int(JOIN_SECONDS))
    address, number, which, _ = found
    if address is None or number is None or which is None:
        raise UserError("the cluster's environment does not say where its first process is, allowed: --coordinator")
    return Place(address, number, which)


def meet(place: Place) -> list[Link]:
    """Returns links to the others, in their order: the first process's to all of them, theirs to the first one.

    Raises UserError if one of them does not come, or is started otherwise.
    """
    return _gather(place) if place.process == 0 else [_join(place)]


def _gather(place: Place) -> list[Link]:
    links: dict[int, Link] = {}
    with contextlib.closing(_listen(place)) as listener:
        for _ in _until(time.monotonic() + _GATHER_SECONDS, _TELL_SECONDS, lambda: _say_missing(place, links)):
            with contextlib.suppress(TimeoutError):
                link = Link(listener.accept()[0])
                if _admits(place, link, links):
                    links[link.process] = link
            if len(links) == place.processes - 1:
                return [links[process] for process in sorted(links)]
    raise UserError(
        f"--coordinator is {place.coordinator!r}: {_missing(place, links)} did not come there within "
        f"{_GATHER_SECONDS:.0f} s, allowed: the same command with --process=0 to {place.processes - 1}"
    )


def _until(deadline: float, tell_seconds: float, tell: Callable[[], None]) -> Iterator[None]:
    """Yields until the deadline; calls `tell` now and then."""
    told = time.monotonic()
    while time.monotonic() < deadline:
        yield
        if time.monotonic() - told > tell_seconds:
            told = time.monotonic()
            tell()


def _missing(place: Place, links: dict[int, Link]) -> str:
    missing = [str(process) for process in range(1, place.processes) if process not in links]
    return f"process{'es' * (len(missing) > 1)} {', '.join(missing)} of {place.processes}"


def _say_missing(place: Place, links: dict[int, Link]) -> None:
    print(f"waiting at {place.coordinator} for {_missing(place, links)}", flush=True)


def _listen(place: Place) -> socket.socket:
    host, port = place.address
    try:
        listener = listen(host, port)
    except OSError as error:
        raise UserError(f"--coordinator is {place.coordinator!r}: {error.strerror or error}, "
                        "allowed: a free port of the first process's machine") from None  # fmt: skip
    listener.settimeout(_PAUSE_SECONDS)
    return listener


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on this machine alone if that is what `host` says, else on all its addresses."""
    if is_loopback(host):
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def is_loopback(host: str) -> bool:
    """Says whether `host` is this machine, seen from itself alone."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _admits(place: Place, link: Link, links: dict[int, Link]) -> bool:
    """Says whether whoever has connected is one of the processes that are missing; tells it."""
    hello = link.hello(_HELLO_SECONDS)
    process, refused, mine = int(hello.get("process", 0)), "", versions()
    theirs = dict.fromkeys(mine, "none") | hello.get("versions", {})
    if differing := [name for name in mine if theirs[name] != mine[name]]:
        one = differing[0]
        refused = (f"version of {one} differs between processes: process 0 has {mine[one]}, process {process} has "
                   f"{theirs[one]}, allowed: the same versions everywhere")  # fmt: skip
    elif hello["processes"] != place.processes:
        refused = (f"--processes is {place.processes} for process 0 and {hello['processes']} for process {process}, "
                   "allowed: the same everywhere")  # fmt: skip
    elif process in links or process not in range(1, place.processes):
        refused = f"--process is {process}, which is there already, allowed: each number once"
    link.send({"versions": mine, "refused": refused})
    if not refused:
        link.process = process
        return True
    link.close()
    if hello and process not in links:
        raise UserError(refused)
    return False


def _join(place: Place) -> Link:
    (host, port), deadline, reason = place.address, time.monotonic() + JOIN_SECONDS, ""
    while time.monotonic() < deadline:
        try:
            link = Link(socket.create_connection((host, port), timeout=_HELLO_SECONDS))
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(_PAUSE_SECONDS)
            continue
        link.send({"versions": versions(), "processes": place.processes, "process": place.process})
        answer = link.hello(deadline - time.monotonic())
        if answer.get("refused"):
            raise UserError(str(answer["refused"]))
        if answer:
            return link
        link.close()
        reason = "what answers there is no finetune"
        time.sleep(_PAUSE_SECONDS)
    raise UserError(
        f"--coordinator is {place.coordinator!r}, and no first process answers there within {JOIN_SECONDS:.0f} s "
        f"({reason}), allowed: HOST:PORT of the process with --process=0, started at about the same time"
    )
