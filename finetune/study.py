"""A study: everything in one work directory, from a config to results. Starting it again continues it."""

import dataclasses
import functools
import importlib.metadata
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pandas as pd

from finetune import __version__, checkpoint, plan, records
from finetune import config as settings
from finetune.config import Config
from finetune.errors import UserError
from finetune.grid import Trial, Value, make_trials
from finetune.parallel import choose_layout, padded_size
from finetune.params import partition
from finetune.population import vmapped
from finetune.progress import Display, console, table_of_settings
from finetune.step import Recipe, Shared
from finetune.subject import Subject, load
from finetune.train import Group, Leaves, Listener, Row, Splits, train_chunk

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


class Results(NamedTuple):
    """What a study has found so far."""

    workdir: Path
    trials: list[Row]  # rows of trials.jsonl, those asked for

    @property
    def exit_status(self) -> int:
        """0 if all trials are done, 1 if some have failed."""
        return int(any(row["status"] not in records.DONE for row in self.trials))

    def table(self) -> pd.DataFrame:
        """Returns one row a trial: id, hyperparameters, status, metrics, best_epoch, steps, reason."""
        return pd.DataFrame(
            {
                "id": row["id"],
                **row["hparams"],
                "status": row["status"],
                **row["metrics"],
                "best_epoch": row["best"]["epoch"] if row["best"] else None,
                "steps": row["steps"],
                "reason": row["reason"],
            }
            for row in self.trials
        )


def run(
    config: Config,
    workdir: str | Path,
    axes: Mapping[str, Sequence[Value]] | None = None,
    sweep: Iterable[Mapping[str, Any]] = ({},),
) -> Results:
    """Trains every trial of `sweep` crossed with `axes` that `workdir` does not hold yet, and returns all results.

    Raises UserError for a setting, a file or a work directory that cannot be used.
    """
    workdir, started = Path(workdir), time.monotonic()
    settings.check(config)
    trials = make_trials(config, axes or {}, sweep)
    records.prepare_workdir(workdir)
    subject = load(config)
    groups = plan.group_trials(trials)
    examples = len(subject.dataset.train["label"])
    recipes = [plan.make_recipe(config, subject.task, subject.shapes, group, examples) for group in groups]
    _begin(config, workdir, subject, axes or {})
    study = _Study(config, workdir, subject, trials)
    study.seconds["load"] = time.monotonic() - started
    console.print(f"{subject}\n{len(trials)} trials in {len(groups)} groups, {len(study.done)} of them done before")
    with study.display.live():
        for number, (group, recipe) in enumerate(zip(groups, recipes, strict=True)):
            study.train(number, group, recipe)
    return study.end()


def _begin(config: Config, workdir: Path, subject: Subject, axes: Mapping[str, Sequence[Value]]) -> None:
    """Writes config.json; raises UserError if the directory holds a study of something else."""
    file = workdir / "config.json"
    if file.exists():
        _check_same(json.loads(file.read_text(encoding="utf-8")), subject, workdir)
    document = {
        "command": sys.argv,
        "config": dataclasses.asdict(config),
        "axes": dict(axes),
        "versions": {"finetune": __version__} | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": [str(device) for device in jax.devices()],
        "architecture": subject.architecture,
        "classes": subject.dataset.classes,
        "fingerprint": subject.fingerprint,
        "description": subject.description,
    }
    records.write(file, document)
    if subject.tokenizer is not None:
        shutil.copyfile(subject.tokenizer, workdir / "tokenizer.json")


def _check_same(earlier: dict[str, Any], subject: Subject, workdir: Path) -> None:
    description = earlier.get("description", {})
    differing = [name for name, value in subject.description.items() if description.get(name) != value]
    if differing:
        raise UserError(
            f"--workdir is {str(workdir)!r}, which holds a study that differs in {', '.join(differing)}, "
            "allowed: a new directory, or the settings of that study"
        )


class _Study:
    """The part of a run that goes over its groups and records what comes out."""

    def __init__(self, config: Config, workdir: Path, subject: Subject, trials: Sequence[Trial]):
        self.config, self.workdir, self.subject = config, workdir, subject
        self.ids = {trial.id(subject.fingerprint): trial for trial in trials}
        rows = {row["id"]: row for row in records.read(workdir / "trials.jsonl") if row["status"] in records.DONE}
        self.done = {identity: row for identity, row in rows.items() if identity in self.ids}
        self.keeper = checkpoint.Keeper(workdir, config.checkpoint.keep)
        self.seconds: dict[str, float] = {}
        self.compiled: dict[str, int] = {}
        epochs = sum(trial.hparams["epochs"] for identity, trial in self.ids.items() if identity not in self.done)
        self.display = Display(len(self.ids), list(self.done.values()), int(epochs), config.evaluation.metric)

    def train(self, number: int, trials: Sequence[Trial], recipe: Recipe) -> None:
        """Trains the trials of group `number` that are not done yet."""
        left = [trial for trial in trials if trial.id(self.subject.fingerprint) not in self.done]
        if not left:
            return
        self._save_base()
        chunks, size = plan.chunks_of(left, self.config.execution.chunk or len(left))
        layout = choose_layout(size, self.config.execution.devices)
        size = padded_size(size, layout)
        programs = vmapped(recipe, self.config.evaluation.metric, layout, epochs_on_device=True)
        trained, frozen = partition(self.subject.base, frozenset(recipe.paths))
        start = {path: leaf for path, leaf in trained.items() if path in self.subject.pretrained}
        group = Group(
            recipe=recipe,
            programs=programs,
            layout=layout,
            shared=layout.put_all(Shared(frozen, start)),
            splits=layout.put_all(Splits(*self.subject.dataset[:3])),
            eval_batch=self.config.evaluation.batch_size,
            metric=self.config.evaluation.metric,
        )
        listener = Listener(self._epoch, functools.partial(self._left, number))
        started = time.monotonic()
        for chunk in chunks:
            train_chunk(group, chunk, [trial.id(self.subject.fingerprint) for trial in chunk], size, listener)
        compiling = sum(program.compile_seconds for program in programs.compiled.values())
        self._spend("compile", compiling)
        self._spend("train", time.monotonic() - started - compiling)
        for name, program in programs.compiled.items():
            self.compiled[name] = self.compiled.get(name, 0) + len(program.executables)

    def _spend(self, what: str, seconds: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def _save_base(self) -> None:
        base = self.workdir / "checkpoints" / "base"
        if not base.is_dir():
            checkpoint.save(base, self.subject.base)

    def _epoch(self, rows: list[Row]) -> None:
        records.append(self.workdir / "curves.jsonl", rows)
        self.display.epoch(rows)

    def _left(self, group: int, rows: list[Row], leaves: Callable[[str], tuple[Leaves, Leaves]]) -> None:
        values = {row["id"]: row["best"]["value"] for row in rows if row["best"]}
        for identity in sorted(values, key=lambda each: values[each], reverse=True)[: self.keeper.keep]:
            if self.keeper.wants(values[identity]):
                self.keeper.offer(identity, values[identity], *leaves(identity))
        rows = [{"id": row["id"], "group": group, **row} for row in rows]
        records.append(self.workdir / "trials.jsonl", rows)
        self.done |= {row["id"]: row for row in rows}
        self.display.left(rows)

    def end(self) -> Results:
        """Writes summary.json, prints the best settings, and returns the results."""
        rows = list(self.done.values())
        diverged = sum(row["status"] == records.DIVERGED for row in rows)
        summary = {
            "trials": len(self.ids),
            "complete": len(rows) - diverged,
            "diverged": diverged,
            "failed": len(self.ids) - len(rows),
            "compiles": self.compiled,
            "seconds": self.seconds,
        }
        records.write(self.workdir / "summary.json", summary)
        console.print(table_of_settings(rows, self.config.evaluation.metric))
        spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        console.print(f"{len(rows)} trials ({diverged} diverged) in {self.workdir} · seconds: {spent}")
        return Results(self.workdir, rows)
