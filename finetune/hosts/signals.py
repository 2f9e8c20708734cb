"""SIGTERM and SIGINT: training looks whether one has come, saves, and leaves; where it cannot look, time runs out.

Where several processes train a study, each hears of a signal that has come to one of them.
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

_TOLD = 128  # added to a signal's number where it came to another process

_received: list[int] = []
_writers: list[int] = []  # of the wake-up pipe, once there is one


class Stopped(BaseException):
    """Raised where a study can be left; `number` is the signal's, `status` the process's exit status."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number, self.status = number, 128 + number


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


def request(number: int) -> None:
    """Does what a signal does; for one that has come to another process of the study."""
    _received.append(number)
    for writer in _writers:
        os.write(writer, bytes([number + _TOLD]))


def install(last_words: Callable[[Stopped], None], tell: Callable[[int], None]) -> None:
    """Takes over SIGTERM and SIGINT; called once, in the main thread of a command.

    last_words: called when the grace time is over, or at a second signal. tell: called with the first one's number.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in _SIGNALS:
        signal.signal(number, _receive)
    threading.Thread(target=_leave_in_time, args=(reader, last_words, tell), daemon=True).start()
    _writers.append(writer)
    if _received:  # another process has told already
        request(_received[0])


def _receive(number: int, frame: Any) -> None:
    del frame
    _received.append(number)


def _leave_in_time(reader: int, last_words: Callable[[Stopped], None], tell: Callable[[int], None]) -> None:
    """Ends the process after the grace time; a thread of its own, since a handler waits for the main thread."""
    came = _next_signal(reader)
    first = came % _TOLD
    _received.append(first)  # the handler may not have run yet, and need not
    again = threading.Event()

    def wait_for_another() -> None:
        own = int(came == first)
        while own < 2:  # a signal that was told of may come to this process too
            own += _next_signal(reader) < _TOLD
        again.set()

    threading.Thread(target=wait_for_another, daemon=True).start()
    if came == first:
        tell(first)
    again.wait(GRACE_SECONDS)
    last_words(Stopped(first))
    os._exit(128 + first)


def _next_signal(reader: int) -> int:
    """Returns the next of the signals that end a study, as Python and `request` write them to the wake-up pipe."""
    while (number := os.read(reader, 1)[0]) % _TOLD not in _SIGNALS:
        pass
    return number
