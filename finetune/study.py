"""A study: everything in one work directory, from a config to results. Starting it again continues it."""

import dataclasses
import functools
import json
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from finetune import checkpoint, measure, plan, records
from finetune import config as settings
from finetune import workdir as directory
from finetune.config import Config
from finetune.errors import UserError
from finetune.feature_pass import Pass
from finetune.feature_store import feature_store
from finetune.features import HostSplit, Trunk, choose_trunk
from finetune.grid import Trial, Value, make_trials
from finetune.measure import Execution, Measured
from finetune.parallel import from_first_process, is_first_process
from finetune.params import partition
from finetune.progress import Display, console, counted, describe_group, table_of_settings
from finetune.results import Results
from finetune.step import Recipe
from finetune.subject import Subject, load
from finetune.train import Leaves, Listener, Row, train_chunk
from finetune.workload import make_workload


def run(
    config: Config,
    workdir: str | Path,
    axes: Mapping[str, Sequence[Value]] | None = None,
    sweep: Iterable[Mapping[str, Any]] = ({},),
    plan_only: bool = False,
) -> Results:
    """Trains every trial of `sweep` crossed with `axes` that `workdir` does not hold yet, and returns all results.

    With `plan_only`, two steps of each group are measured and the plan is printed and written; nothing is trained.
    Raises UserError for a setting, a file or a work directory that cannot be used.
    """
    workdir, started = Path(workdir), time.monotonic()
    settings.check(config)
    trials = make_trials(config, axes or {}, sweep)
    if is_first_process():
        directory.prepare(workdir)
    subject = load(config)
    groups = plan.group_trials(trials)
    examples = len(subject.dataset.train["label"])
    recipes = [plan.make_recipe(config, subject.task, subject.shapes, group, examples) for group in groups]
    if is_first_process():
        directory.begin(config, workdir, subject, dict(axes or {}))
    else:
        console.quiet = True
    study = _Study(config, workdir, subject, trials)
    study.seconds["load"] = time.monotonic() - started
    console.print(f"{subject}\ntrials: {len(trials)}, done before: {len(study.done)}, groups: {len(groups)}")
    jobs = [study.job(*each) for each in zip(range(len(groups)), groups, recipes, strict=True) if study.left(each[1])]
    study.compute_features(jobs, plan_only)
    for job in jobs:
        if plan_only:
            study.prepare(job)
        else:
            study.train(job)
    return study.end_plan() if plan_only else study.end()


class Job(NamedTuple):
    """A group with trials that are not done yet, and what becomes of its frozen part."""

    number: int
    trials: list[Trial]
    recipe: Recipe
    trunk: Trunk
    signature: dict[str, Any]


class _Study:
    """The part of a run that goes over its groups, and records what comes out."""

    def __init__(self, config: Config, workdir: Path, subject: Subject, trials: Sequence[Trial]):
        self.config, self.workdir, self.subject = config, workdir, subject
        self.ids = {trial.id(subject.fingerprint): trial for trial in trials}
        before = json.loads(from_first_process(json.dumps(_before(workdir))))
        self.done = {row["id"]: row for row in before["trials"] if row["id"] in self.ids}
        self.earlier = {_key(each["signature"]): each for each in before["groups"]}
        self.recorder = records.Recorder(workdir, is_first_process())
        self.keeper = checkpoint.Keeper(workdir, config.checkpoint.keep, before["kept"], is_first_process())
        self.seconds: dict[str, float] = {}
        self.compiled: dict[str, int] = {}
        self.planned: list[dict[str, Any]] = []
        self.splits = subject.dataset[:3]
        self.features: list[HostSplit] = []
        self.trunk_seconds, self.trunk_passes = 0.0, 0
        self.store = feature_store(config.trunk)
        epochs = sum(trial.hparams["epochs"] for identity, trial in self.ids.items() if identity not in self.done)
        self.display = Display(len(self.ids), list(self.done.values()), int(epochs), config.evaluation.metric)

    def left(self, trials: Sequence[Trial]) -> list[Trial]:
        """Returns those of `trials` that are not done yet."""
        return [trial for trial in trials if trial.id(self.subject.fingerprint) not in self.done]

    def job(self, number: int, trials: Sequence[Trial], recipe: Recipe) -> Job:
        """Returns what is left to do of group `number`."""
        signature = plan.signature(self.subject.fingerprint, recipe, trials)
        earlier = self.earlier.get(_key(signature))
        room, settings_of_trunk = measure.feature_room(self.store), self.config.trunk
        if earlier:  # the same computation again
            settings_of_trunk = dataclasses.replace(settings_of_trunk, mode=earlier["trunk"])
            room = room.only(earlier["trunk_place"])
        trunk = choose_trunk(settings_of_trunk, recipe, self.subject.shapes, self.splits, trials, room)
        return Job(number, self.left(trials), recipe, trunk, signature)

    def compute_features(self, jobs: Sequence[Job], plan_only: bool) -> None:
        """Runs the trunks of all groups over the data, or finds out how long that would take."""
        started = time.monotonic()
        trunks, batch_size = [job.trunk for job in jobs], self.config.evaluation.batch_size
        trunk_pass = Pass(trunks, self.subject.base, self.splits, batch_size, self.store)
        self.trunk_passes = int(trunk_pass.batches > 0)
        if plan_only:
            self.features = trunk_pass.imagined()
            self.trunk_seconds = trunk_pass.estimated_seconds()
        else:
            with counted("frozen part over the data", trunk_pass.batches) as advance:
                self.features = trunk_pass.run(advance)
            self.trunk_seconds = time.monotonic() - started
        self._spend("trunk", time.monotonic() - started)

    def prepare(self, job: Job) -> tuple[Measured, list[list[Trial]]]:
        """Returns the group compiled in the way that is best on this machine, and its chunks; writes the plan."""
        started = time.monotonic()
        trials, signature, trunk = job.trials, job.signature, job.trunk
        trained, frozen = partition(self.subject.base, frozenset(job.recipe.paths))
        trained_bytes = checkpoint.content(trained)
        pretrained = {path: leaf for path, leaf in trained.items() if path in self.subject.pretrained}
        work = make_workload(
            job.recipe, trunk, frozen, pretrained, self.splits, self.features,
            trials=max(plan.chunks_of(trials, len(trials))[0], key=len),
            metric=self.config.evaluation.metric,
            eval_batch=self.config.evaluation.batch_size,
            trained_bytes=trained_bytes,
        )  # fmt: skip
        earlier = self.earlier.pop(_key(signature), None)
        execution = self.config.execution
        if self.config.trunk.mode == "none":  # vmap would share what is frozen
            execution = dataclasses.replace(execution, mode="loop")
        measured = measure.choose(execution, work, _execution(earlier))
        chunks, _ = plan.chunks_of(trials, measured.execution.size)
        estimate = plan.estimate(measured, chunks, trained_bytes, self.config.checkpoint.keep)
        self._spend("compile", time.monotonic() - started)
        self.planned.append(plan.describe(signature, trials, chunks, measured, estimate, trunk))
        console.print(describe_group(self.planned[-1]))
        self._write_plan()
        return measured, chunks

    def _write_plan(self) -> dict[str, Any]:
        """Writes plan.json and returns it."""
        base = 0 if (self.workdir / "checkpoints" / "base").is_dir() else checkpoint.content(self.subject.base)
        document = {
            "trials": len(self.ids),
            "groups": [*self.earlier.values(), *self.planned],
            "trunk_seconds": self.trunk_seconds,
            "seconds": self.seconds["load"]
            + self.trunk_seconds
            + self.seconds.get("compile", 0.0)
            + sum(group["seconds"] for group in self.planned),
            "disk_bytes": directory.size_bytes(self.workdir) + base + sum(each["disk_bytes"] for each in self.planned),
            "process_bytes": _peak_process_bytes(),
        }
        self.recorder.write("plan.json", document)
        return document

    def train(self, job: Job) -> None:
        """Trains the trials of a group to their ends; where memory runs out on the way, the rest in smaller chunks."""
        self._save_base()
        while job.trials:
            measured, chunks = self.prepare(job)
            try:
                self._train_chunks(job.number, measured, chunks)
            except jax.errors.JaxRuntimeError as error:
                size = measured.execution.size
                if "RESOURCE_EXHAUSTED" not in str(error) or size == 1:
                    raise
                console.print(f"out of memory with chunks of {size}: going on with {-(-size // 2)}")
                self.config.execution.chunk = -(-size // 2)
                self.planned.pop()
            del measured, chunks  # before the next ones ask for memory
            job = job._replace(trials=self.left(job.trials))

    def _train_chunks(self, number: int, measured: Measured, chunks: Sequence[Sequence[Trial]]) -> None:
        started, evaluating = time.monotonic(), 0.0
        listener = Listener(self._epoch, functools.partial(self._left, number))
        with self.display.live():
            for chunk in chunks:
                ids = [trial.id(self.subject.fingerprint) for trial in chunk]
                evaluating += train_chunk(measured.group, chunk, ids, measured.execution.size, listener)
        self._spend("eval", evaluating)
        self._spend("train", time.monotonic() - started - evaluating)
        for name, program in measured.group.programs.compiled.items():
            self._count_compiles(name, 1)
            self._count_compiles(f"{name}_after_compaction", len(program.executables) - 1)

    def _count_compiles(self, what: str, number: int) -> None:
        self.compiled[what] = self.compiled.get(what, 0) + number

    def _spend(self, what: str, seconds: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def _save_base(self) -> None:
        base = self.workdir / "checkpoints" / "base"
        if is_first_process() and not base.is_dir():
            checkpoint.save(base, self.subject.base)

    def _epoch(self, rows: list[Row]) -> None:
        self.recorder.append("curves.jsonl", rows)
        self.display.epoch(rows)

    def _left(self, group: int, rows: list[Row], leaves: Callable[[str], tuple[Leaves, Leaves]]) -> None:
        values = {row["id"]: row["best"]["value"] for row in rows if row["best"]}
        for identity in sorted(values, key=lambda each: values[each], reverse=True)[: self.keeper.keep]:
            if self.keeper.wants(values[identity]):
                self.keeper.offer(identity, values[identity], *leaves(identity))
        rows = [{"id": row["id"], "group": group, **row} for row in rows]
        self.recorder.append("trials.jsonl", rows)
        self.done |= {row["id"]: row for row in rows}
        self.display.left(rows)

    def end_plan(self) -> Results:
        """Prints what the whole study will take, and returns the results so far."""
        document = self._write_plan()
        console.print(
            f"in all about {document['seconds']:.0f} s, {document['process_bytes'] / 1e9:.2f} GB of memory, "
            f"{document['disk_bytes'] / 1e6:.0f} MB on disk; the plan is in {self.workdir / 'plan.json'}"
        )
        return Results(self.workdir, list(self.done.values()))

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
            "trunk_passes": self.trunk_passes,
            "flops": sum(group["flops"] + group["trunk_flops"] for group in self.planned),
            "seconds": self.seconds,
            "disk_bytes": directory.size_bytes(self.workdir),
            "process_bytes": _peak_process_bytes(),
        }
        if self.planned:  # else nothing has been done, and the summary of what has been stays
            self.recorder.write("summary.json", summary)
        console.print(table_of_settings(rows, self.config.evaluation.metric))
        spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        console.print(f"{len(rows)} trials ({diverged} diverged) in {self.workdir} · seconds: {spent}")
        return Results(self.workdir, rows)


def _peak_process_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _before(workdir: Path) -> dict[str, Any]:
    """Returns what the directory holds of earlier runs: results, groups of the plan, and kept weights."""
    return {
        "trials": [row for row in records.read_trials(workdir) if row["status"] in records.DONE],
        "groups": _earlier_groups(workdir / "plan.json"),
        "kept": dict(checkpoint.kept(workdir)),
    }


def _earlier_groups(file: Path) -> list[dict[str, Any]]:
    groups = records.read_document(file).get("groups", [])
    wanted = {"signature", "mode", "on_device", "chunk", "reason", "trunk", "trunk_place"}
    if not isinstance(groups, list) or not all(isinstance(each, dict) and each.keys() >= wanted for each in groups):
        raise UserError(f"{file} holds no groups as a study writes them, allowed: the file as it was, or none")
    return groups


def _key(signature: dict[str, Any]) -> str:
    return json.dumps(signature, sort_keys=True)


def _execution(group: dict[str, Any] | None) -> Execution | None:
    """Returns how a group of an earlier plan ran."""
    return Execution(group["mode"], group["on_device"], group["chunk"], group["reason"]) if group else None
