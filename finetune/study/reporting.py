"""The report of a study that runs: written when something is new, and never a reason for the study to stop."""

import contextlib
import time
from pathlib import Path

from finetune import report
from finetune.errors import UserError
from finetune.hosts.console import console
from finetune.study import conclusion

_REFRESH_SECONDS = 60  # between reports while the study runs, at least


class Reporting:
    """Writes report.html of a study; `seconds` is the time that it has taken."""

    def __init__(self, workdir: Path, writes: bool):
        self.seconds = 0.0
        self._workdir, self._writes = workdir, writes
        self._last = time.monotonic()

    def update(self) -> None:
        """Writes the page while the study runs, if the last one is a minute old; a browser reads it again by itself."""
        if time.monotonic() - self._last > _REFRESH_SECONDS:
            self._write(_REFRESH_SECONDS)
            self._last = time.monotonic()

    def end(self) -> list[str]:
        """Writes page and figures where something is new, and returns the lines that answer the question."""
        return self._write(None)

    def _write(self, refresh: int | None) -> list[str]:
        if not self._writes:
            return []
        started = time.monotonic()
        try:
            known = conclusion.answer(self._workdir) if refresh is None else None
            return known or self._drawn(refresh)
        except UserError as error:
            return [f"no report: {error}"]
        except Exception as error:  # a chart or a statistic that fails must not cost the trials
            again = f"python -m finetune.report {self._workdir}"
            return [f"no report: {type(error).__name__}: {str(error).splitlines()[:1]}; {again} tries again"]
        finally:
            self.seconds += time.monotonic() - started

    def _drawn(self, refresh: int | None) -> list[str]:
        answer = report.write(self._workdir, refresh)
        from finetune.report import terminal  # as late as the analysis that it shows

        lines = terminal.lines(answer, self._workdir / "report.html")
        if refresh is None:
            with contextlib.suppress(UserError):  # the next start draws it again
                conclusion.write(self._workdir, lines)
        return lines


def show(lines: list[str]) -> None:
    """Prints the answer."""
    for line in ["", *lines] if lines else []:
        console.print(line, markup=False)
