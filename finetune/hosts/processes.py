"""The processes that train a study together: what the first one decides, and how they end.

Over the links that meeting.py makes go the words that all must take alike, and news: that one was told to stop, or that
it ends and why. The system closes a link with the process, however that ends, so that the others learn of it at once;
each then says so in a line and ends too, since JAX would wait for ever. One that is merely suspended is waited for.
"""

import contextlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np

from finetune.errors import UserError
from finetune.hosts import meeting, relay, signals

GONE_STATUS = 1  # of a process that ends because another one has gone

# JAX's own watch over processes is left to the links: a suspended process is no dead one.
_HEARTBEAT_SECONDS, _SHUTDOWN_SECONDS = 7 * 24 * 3600, 10
_SAME_ERROR_SECONDS = 30.0  # in which an error that is everybody's is met by everybody
_NEWS_SECONDS = 2.0  # in which the end of another process is known, once something fails for it
_EXCHANGES = "Gloo", "NCCL"  # what JAX exchanges values by, as its errors name it
_SHOWN = 200  # characters of an error
_SAY, _STOP, _END, _BYE = "say", "stop", "end", "bye"
_GOES_ON = "what is done is kept, start the same command on all of them again to continue"


class Disagreement(UserError):
    """What processes disagree about; each of them raises it."""


class Processes:
    """This process among those of a study: its number, how many there are, and its links.

    The first one has a link to every other one, and hands on what it is told; those have one to the first one.
    """

    def __init__(self, index: int, count: int, links: list[meeting.Link]):
        self.index, self.count, self._links = index, count, links
        self._last_line = threading.RLock()  # whoever holds it says the last line
        for link in links:
            threading.Thread(target=self._listen, args=(link,), daemon=True).start()

    def __str__(self) -> str:
        return f"process {self.index} of {self.count}"

    def from_first(self, about: str, word: bytes) -> bytes:
        """Returns the first process's word on every process."""
        if self.index > 0:
            return self._take(self._links[0], about)
        self._tell({"kind": _SAY, "about": about}, word)
        return word

    def of_all(self, about: str, word: str, seconds: float | None = None) -> list[str]:
        """Returns every process's word on every process, in their order."""
        words = [word]
        if self.index == 0:
            words += [self._take(link, about, word, seconds).decode() for link in self._links]
            self._tell({"kind": _SAY, "about": about}, json.dumps(words).encode())
            return words
        self._links[0].send({"kind": _SAY, "about": about}, word.encode())
        return list(json.loads(self._take(self._links[0], about, word, seconds)))

    def _take(self, link: meeting.Link, about: str, mine: str = "", seconds: float | None = None) -> bytes:
        """Returns what another process says about something; ends all where it says nothing, or is elsewhere."""
        try:
            found, word = link.words.get(timeout=seconds)
        except queue.Empty:
            found, word = "", b""
        if found != about:
            there = f"at {found}" if found else "not"
            self.end(f"{self} is at {about} {mine[:_SHOWN]!r} and process {link.process} is {there}: {_GOES_ON}",
                     GONE_STATUS)  # fmt: skip
        return word

    def end(self, line: str, status: int) -> NoReturn:
        """Says a line, hands it on to the others, which say it too, and ends this process."""
        self.claim()
        _print_last(line)
        self.leave(status, line)

    def claim(self) -> None:
        """Takes the right to say the last line of this process; does not return if another thread has taken it."""
        if not self._last_line.acquire(blocking=False):
            threading.Event().wait()

    def leave(self, status: int, line: str = "") -> NoReturn:
        """Ends this process; the others end with `line` and the same status, if there is one.

        Without the interpreter's own end, in which JAX would wait for processes that may have gone.
        """
        self._tell({"kind": _END, "status": status} if line else {"kind": _BYE}, line.encode())
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)

    def tell_stop(self, number: int) -> None:
        """Tells the others that this process was told to stop."""
        self._tell({"kind": _STOP, "number": number})

    def _tell(self, header: dict[str, Any], content: bytes = b"", besides: meeting.Link | None = None) -> None:
        for link in self._links:
            if link is not besides:
                link.send(header, content)

    def _listen(self, link: meeting.Link) -> None:
        """Takes what another process sends until it ends; a thread of its own."""
        while True:
            try:
                header, content = link.receive()
            except (OSError, EOFError, ValueError) as error:
                return self._lost(link, error)
            kind = header["kind"]
            if kind == _SAY:
                link.words.put((header["about"], content))
            elif kind == _STOP:
                signals.request(header["number"])
                self._tell(header, besides=link)
            elif kind == _END:
                self.end(content.decode(), header["status"])
            elif kind == _BYE:
                link.is_over = True

    def _lost(self, link: meeting.Link, error: Exception) -> None:
        if link.is_over or signals.requested():  # then it leaves, as this process does
            return
        why = "does not answer any more" if isinstance(error, TimeoutError) else "has gone"
        self.end(f"process {link.process} of {self.count} {why}: {_GOES_ON}", GONE_STATUS)


_here = Processes(0, 1, [])


def _print_last(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"error: {' '.join(line.split())}\n".encode())  # at once, whatever the main thread is printing


def join(coordinator: str, processes: int, process: int) -> None:
    """Joins the processes of several hosts, as the flags say or as the cluster's environment does; called once.

    Raises UserError for flags that do not fit together, or if one of the processes does not come.
    """
    global _here
    place = meeting.find_place(coordinator, processes, process)
    if place is None:
        return
    links = meeting.meet(place)
    _here = Processes(place.process, place.processes, links)
    _start_jax(place)


def _start_jax(place: meeting.Place) -> None:
    host, _ = place.address
    port = int(from_first("the port of JAX", str(_free_port(host) if place.process == 0 else 0)))
    near = host if meeting.is_loopback(host) else "127.0.0.1"
    service = f"[{near}]:{port}" if ":" in near else f"{near}:{port}"
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            service if place.process == 0 else relay.start(host, port),
            place.processes,
            place.process,
            coordinator_bind_address=service if meeting.is_loopback(host) else None,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"JAX cannot join the processes: {str(error).splitlines()[0]}") from None


def _free_port(host: str) -> int:
    with meeting.listen(host, 0) as probe:
        return int(probe.getsockname()[1])


def here() -> Processes:
    """Returns this process among those of the study."""
    return _here


def is_first() -> bool:
    """Says whether this process is the one that decides, writes and prints."""
    return _here.index == 0


def from_first(about: str, word: str) -> str:
    """Returns the first process's word about something on every process."""
    return _here.from_first(about, word.encode()).decode()


def arrays_from_first(about: str, tree: Any) -> Any:
    """Returns the first process's tree of host arrays on every process; the others give one of the same shapes."""
    if _here.count == 1:
        return tree

    def taken(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        return np.frombuffer(_here.from_first(about, array.tobytes()), array.dtype).reshape(array.shape)

    return jax.tree.map(taken, tree)


def met_by_all(error: Exception) -> None:
    """Returns if every process has met an error of this kind; ends all of them if it is one process's own.

    What all meet is a trial's fault, and all go on from there; what one meets alone, the others wait for. What the
    exchange of values meets is no trial's fault either.
    """
    if _here.count == 1:
        return
    if any(name in str(error) for name in _EXCHANGES):
        time.sleep(_NEWS_SECONDS)
        _here.end(f"{_here}: {str(error)[:_SHOWN]}: {_GOES_ON}", GONE_STATUS)
    kind = type(error).__name__ + " for lack of memory" * ("RESOURCE_EXHAUSTED" in str(error))
    _here.of_all(f"an error, {kind},", str(error), _SAME_ERROR_SECONDS)


def run(study: Callable[[], int]) -> int:
    """Returns the exit status of a study; where several processes train it, each ends here, as all do."""
    if _here.count == 1:
        return study()
    try:
        status = study()
    except Disagreement as error:
        _here.claim()
        _print_last(str(error))
        status = 2
    except UserError as error:
        _here.end(f"{_here}: {error}", 2)
    except Exception as error:  # what --fail_fast raises, or a fault of this program
        time.sleep(_NEWS_SECONDS)  # the end of another process may be why, and is then told by another thread
        traceback.print_exc()
        _here.end(f"{_here}: {type(error).__name__}: {error}", GONE_STATUS)
    _here.leave(status)
