"""What a user sees while a study trains and when it has ended: a live line, and a table of settings."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from finetune.hosts.console import Lines, console
from finetune.storage import records

_SPREAD_WIDTH = 13  # of 0.1234±0.1234
_ROWS = 10  # settings shown in the table


class Display:
    """Counts trials and epochs as they end, and shows them live."""

    def __init__(
        self, trials: int, done: Sequence[dict[str, Any]], member_epochs: int, metric: str, larger_is_better: bool
    ):
        self._trials, self._metric, self._member_epochs = trials, metric, member_epochs
        self._sign = 1 if larger_is_better else -1
        self._status = dict.fromkeys((records.COMPLETE, records.DIVERGED), 0)
        self._best = -math.inf
        self._done_epochs = self._epochs_before = 0
        self._losses: tuple[float, float] = (math.nan, math.nan)
        self._lines = Lines()
        self._progress = Progress(
            BarColumn(bar_width=40), MofNCompleteColumn(), TextColumn("epochs · left"), TimeRemainingColumn()
        )
        self._bar = self._progress.add_task("training", total=member_epochs)
        self._live = Live(console=console, transient=True, get_renderable=self._table)
        for row in done:
            self._count(row)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Shows the line while the block runs; on no terminal, a line is printed every few seconds instead."""
        self._lines, self._epochs_before = Lines(), self._done_epochs
        if not console.is_terminal:
            yield
            return
        with self._live:
            yield

    def epoch(self, rows: Sequence[dict[str, Any]]) -> None:
        """Takes this epoch's rows of curves.jsonl."""
        if not rows:
            return
        values = [row[f"val_{self._metric}"] for row in rows]
        self._losses = (_median([row["train_loss"] for row in rows]), _median(values))
        self._best = max([self._best, *(self._sign * value for value in values if math.isfinite(value))])
        self._done_epochs += len(rows)
        self._progress.update(self._bar, completed=self._done_epochs)
        share = (self._done_epochs - self._epochs_before) / max(1, self._member_epochs - self._epochs_before)
        self._lines.print(self._line(), share)

    def left(self, rows: Sequence[dict[str, Any]]) -> None:
        """Takes rows of trials.jsonl."""
        for row in rows:
            self._count(row)

    def _count(self, row: dict[str, Any]) -> None:
        self._status[row["status"]] = self._status.get(row["status"], 0) + 1

    def _cells(self) -> dict[str, str]:
        """Returns how the study stands, by name."""
        done, diverged = self._status[records.COMPLETE], self._status[records.DIVERGED]
        stopped = self._status.get(records.STOPPED, 0)
        best = self._sign * self._best
        return {
            "done": str(done),
            "diverged": str(diverged),
            **({"stopped": str(stopped)} if stopped else {}),
            "left": str(self._trials - done - diverged - stopped),
            "train loss": f"{self._losses[0]:.4f}",
            f"val {self._metric}": f"{self._losses[1]:.4f}",
            "best so far": f"{best:.4f}" if math.isfinite(best) else "-",
        }

    def _table(self) -> Group:
        cells = self._cells()
        table = Table(*cells, box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_row(*cells.values())
        return Group(table, self._progress)

    def _line(self) -> str:
        return "trials: " + ", ".join(f"{name} {value}" for name, value in self._cells().items())


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan


def describe_group(group: dict[str, Any]) -> str:
    """Returns a group of plan.json in words."""
    choices = ", ".join(f"{name} {group['signature'][name]}" for name in ("trainable", "optimizer.name", "schedule"))
    first, *smaller = group["population_sizes"]
    compiled = f"compiled for {first} members" if group["mode"] == "vmap" else "called for each member"
    if smaller and group["mode"] == "vmap":
        compiled += f", again for {', '.join(map(str, smaller))} as members finish"
    return (
        f"group {choices}: {group['trials']} trials in {group['chunks']} chunk{'s' * (group['chunks'] > 1)} "
        f"of {group['chunk']} by {group['mode']}\n"
        f"  why: {group['reason']}\n"
        f"  programs: one to train, {compiled}; "
        f"micro-batches of {group['signature']['micro_batch']}; {group['trained_parameters']:,} parameters train\n"
        f"  trunk {group['trunk']}{' on the host' if group['trunk_place'] == 'host' else ''}: {group['trunk_reason']}\n"
        f"  about {group['seconds']:.0f} s to train and evaluate, {group['flops'] / 1e12:.2f} TFLOP, "
        f"{group['bytes'] / 1e6:.0f} MB at once, {group['disk_bytes'] / 1e6:.1f} MB on disk"
    )


def table_of_settings(rows: Sequence[dict[str, Any]], metric: str, larger_is_better: bool) -> Table:
    """Returns the best settings, each a mean over its seeds with the range, best by the validation metric first."""
    rows = records.completed(rows)
    axes = [name for name in rows[0]["hparams"] if name != "seed" and len({row["hparams"][name] for row in rows}) > 1]
    shown = axes or ["learning_rate", "batch_size", "epochs", "trainable"]
    settings: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        settings[tuple(row["hparams"][name] for name in shown)].append(row)
    sign = -1 if larger_is_better else 1
    ordered = sorted(settings.values(), key=lambda each: sign * _mean(each, f"val_{metric}", sign * math.inf))
    title = f"the best of {len(settings)} settings by validation {metric}: mean ± half the range over seeds"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in (*(name.replace("_", " ") for name in shown), "seeds"):
        table.add_column(name, justify="right")
    for name in (f"val {metric}", f"test {metric}"):
        table.add_column(name, justify="right", min_width=_SPREAD_WIDTH)
    table.add_column("best epoch", justify="right")
    for setting in ordered[:_ROWS]:
        cells = [_cell(setting[0]["hparams"][name]) for name in shown]
        epochs = [row["best"]["epoch"] for row in setting if row["best"]]
        diverged = sum(row["status"] == records.DIVERGED for row in setting)
        table.add_row(
            *cells,
            str(len(setting)) + (f" ({diverged} diverged)" if diverged else ""),
            _spread(setting, f"val_{metric}"),
            _spread(setting, f"test_{metric}"),
            f"{np.mean(epochs):.3g}" if epochs else "-",
        )
    return table


def _cell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _values(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [row["metrics"][name] for row in rows if row["metrics"].get(name) is not None]


def _mean(rows: Sequence[dict[str, Any]], name: str, absent: float) -> float:
    values = _values(rows, name)
    return float(np.mean(values)) if values else absent


def _spread(rows: Sequence[dict[str, Any]], name: str) -> str:
    values = _values(rows, name)
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{np.mean(values):.4f}±{(max(values) - min(values)) / 2:.4f}"
