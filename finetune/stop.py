"""SIGTERM and SIGINT: training looks whether one has come, saves, and leaves; where it cannot look, time runs out.

What a study has written is whole at any moment, so that leaving without a word costs what came after the last
checkpoint.
"""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, NoReturn

GRACE_SECONDS = 8.0  # between the signal and the end, whatever the main thread is doing
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_received: list[int] = []


class Stopped(BaseException):
    """Raised where a study can be left; `status` is the process's exit status."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


def requested() -> bool:
    """Says whether a signal has come."""
    return bool(_received)


def check() -> None:
    """Raises Stopped if a signal has come."""
    if _received:
        raise Stopped(_received[0])


def checked(advance: Callable[[], None]) -> Callable[[], None]:
    """Returns `advance`, called after each piece of work, with a look before it at whether a signal has come."""

    def advance_or_stop() -> None:
        check()
        advance()

    return advance_or_stop


def leave() -> NoReturn:
    """Raises Stopped; on a process that no signal has reached, since another one has told it."""
    raise Stopped(_received[0] if _received else signal.SIGTERM)


def install(last_words: Callable[[Stopped], None]) -> None:
    """Takes over SIGTERM and SIGINT; called once, in the main thread of a command.

    last_words: called when the grace time is over, or at a second signal.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in _SIGNALS:
        signal.signal(number, _receive)
    threading.Thread(target=_leave_in_time, args=(reader, last_words), daemon=True).start()


def _receive(number: int, frame: Any) -> None:
    del frame
    _received.append(number)


def _leave_in_time(reader: int, last_words: Callable[[Stopped], None]) -> None:
    """Ends the process after the grace time; a thread of its own, since a handler waits for the main thread."""
    first = _next_signal(reader)
    _received.append(first)  # the handler may not have run yet, and need not
    again = threading.Event()

    def wait_for_another() -> None:
        _next_signal(reader)
        again.set()

    threading.Thread(target=wait_for_another, daemon=True).start()
    again.wait(GRACE_SECONDS)
    last_words(Stopped(first))
    os._exit(128 + first)


def _next_signal(reader: int) -> int:
    """Returns the next of the signals that end a study, as Python writes them to its wake-up pipe."""
    while (number := os.read(reader, 1)[0]) not in _SIGNALS:
        pass
    return number
