"""What is printed while something goes on: the console, lines as they are, and how much of a piece of work is done."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from finetune.hosts.output import Console

_PLAIN_SECONDS = 5.0  # between lines where the output is no terminal
_PLAIN_WIDTH = 120  # characters of a line where the output is no terminal

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = _PLAIN_WIDTH


class Lines:
    """A line every few seconds, for output that is no terminal."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()

    def print(self, text: str, share: float) -> None:
        """Prints `text` with the share that is done and the seconds left, unless a line came just before."""
        now = time.monotonic()
        if not console.is_terminal and share > 0 and now - self._last > _PLAIN_SECONDS:
            self._last = now
            left = (now - self._started) * (1 - share) / share
            console.print(f"{text} · {share:.0%} · {left:.0f} s left")


@contextmanager
def counted(what: str, total: int, seconds: float) -> Iterator[Callable[[], None]]:
    """Shows how many of `total` pieces of work, of about `seconds`, are done; gives the function to call after each."""
    if total:
        tell(f"{what}: about {seconds:.0f} s")
    lines, done = Lines(), 0
    bar = Progress(TextColumn(what), BarColumn(bar_width=24), TimeRemainingColumn(), console=console, transient=True)
    task = bar.add_task(what, total=total)

    def advance() -> None:
        nonlocal done
        done += 1
        bar.advance(task)
        lines.print(what, done / total)

    if total and console.is_terminal:
        with bar:
            yield advance
    else:
        yield advance


def tell(text: str) -> None:
    """Prints a line as it is."""
    console.print(text, markup=False)
