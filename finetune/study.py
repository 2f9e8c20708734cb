"""A study: everything in one work directory, from a config to results. Starting it again continues it."""

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from finetune import checkpoint, lock, measure, own, parents, plan, planned, records, reporting, stop, summary
from finetune import config as settings
from finetune import workdir as directory
from finetune.chunk import Chunk, chunks_left
from finetune.config import Config
from finetune.errors import OutOfMemory, UserError
from finetune.feature_pass import Pass
from finetune.feature_store import feature_store
from finetune.features import HostSplit, Trunk, choose_trunk
from finetune.grid import Trial, Value, make_trials
from finetune.ledger import Ledger
from finetune.measure import Measured
from finetune.parallel import is_first_process
from finetune.params import named_parts, partition
from finetune.progress import Display, console, counted, describe_group, tell
from finetune.results import Results
from finetune.snapshot import Saver, Snapshot
from finetune.step import Recipe
from finetune.subject import Subject, load
from finetune.training import Training
from finetune.workload import make_workload


def run(
    config: Config,
    workdir: str | Path,
    axes: Mapping[str, Sequence[Value]] | None = None,
    sweep: Iterable[Mapping[str, Any]] = ({},),
    plan_only: bool = False,
    retry: bool = False,
    fail_fast: bool = False,
    task: own.OwnTask | None = None,
) -> Results:
    """Trains every trial of `sweep` crossed with `axes` that `workdir` does not hold yet, and returns all results.

    With `plan_only`, two steps of each group are measured and the plan is printed and written; nothing is trained.
    With `retry`, trials that have failed twice are tried again; with `fail_fast`, what the first one raises is raised.
    task: one of the user's own, or task(classes, example) that makes it, in place of the model of the settings.
    Raises UserError for a setting, a file or a work directory that cannot be used.
    """
    workdir = Path(workdir)
    settings.check(config)
    config = config if task is None else own.checked(config)
    trials = parents.checked(make_trials(config, axes or {}, sweep))
    if is_first_process():
        directory.prepare(workdir)
    else:
        console.quiet = True
    with lock.held(workdir) if is_first_process() else contextlib.nullcontext():
        return _run(config, workdir, trials, dict(axes or {}), Choices(plan_only, retry, fail_fast, task))


class Choices(NamedTuple):
    """What a run of a study is to do, as `run` says."""

    plan_only: bool
    retry: bool
    fail_fast: bool
    task: own.OwnTask | None


def _run(config: Config, workdir: Path, trials: list[Trial], axes: dict[str, Any], choices: Choices) -> Results:
    started = time.monotonic()
    subject = load(config, choices.task)
    groups = plan.group_trials(trials, subject.task, subject.shapes, named_parts(config.parts))
    examples = len(subject.dataset.train["label"])
    recipes, told = plan.make_recipes(config, subject.task, subject.shapes, groups, examples)
    if is_first_process():
        directory.begin(config, workdir, subject, axes, tell)
    with contextlib.closing(_Study(config, workdir, subject, trials, choices)) as study:
        study.seconds["load"] = time.monotonic() - started
        console.print(f"{subject}\ntrials: {len(trials)}, done before: {len(study.done)}, groups: {len(groups)}{told}")
        stop.check()
        jobs = [
            study.job(*each) for each in zip(range(len(groups)), groups, recipes, strict=True) if study.left(each[1])
        ]
        study.compute_features(jobs, choices.plan_only)
        for job in jobs:
            if choices.plan_only:
                study.prepare(job, config.execution.chunk)
            else:
                study.train(job)
        return study.end_plan() if choices.plan_only else study.end()


class Job(NamedTuple):
    """A group with trials that are not done yet, and what becomes of its frozen part."""

    number: int
    trials: list[Trial]
    recipe: Recipe
    trunk: Trunk
    signature: dict[str, Any]


class _Study:
    """The part of a run that goes over its groups, and records what comes out."""

    def __init__(self, config: Config, workdir: Path, subject: Subject, trials: Sequence[Trial], choices: Choices):
        self.config, self.workdir, self.subject = config, workdir, subject
        self.ids = {trial.id(subject.fingerprint): trial for trial in trials}
        self.ledger = Ledger(workdir, config.checkpoint, self.ids, choices.retry, tell)
        self.done, self.planned = self.ledger.done, planned.Planned(self.ledger.groups)
        self.seconds: dict[str, float] = {}
        self.compiled: dict[str, int] = {}
        self.features: list[HostSplit] = []
        self.trunk_seconds, self.trunk_passes = 0.0, 0
        self.splits, self.store = subject.dataset[:3], feature_store(config.trunk)
        epochs = sum(trial.hparams["epochs"] for identity, trial in self.ids.items() if identity not in self.done)
        chosen_on = config.evaluation.metric, subject.larger_is_better
        display = Display(len(self.ids), list(self.done.values()), int(epochs), *chosen_on)
        saver = Saver(workdir, config.checkpoint.interval_seconds, is_first_process())
        self.reporting = reporting.Reporting(workdir, is_first_process())
        self.training = Training(self.ledger, saver, display, subject.base, choices.fail_fast)

    def close(self) -> None:
        """Returns when nothing is written any more, however the study ends."""
        self.training.close()

    def left(self, trials: Sequence[Trial]) -> list[Trial]:
        """Returns those of `trials` that are to be trained."""
        return [trial for trial in trials if self.ledger.left(trial.id(self.subject.fingerprint))]

    def _named(self, trials: Iterable[Trial]) -> dict[str, Trial]:
        return {trial.id(self.subject.fingerprint): trial for trial in trials}

    def job(self, number: int, trials: Sequence[Trial], recipe: Recipe) -> Job:
        """Returns what is left to do of group `number`."""
        signature = plan.signature(self.subject.fingerprint, recipe, trials)
        earlier = self.planned.earlier(signature)
        shapes = self.subject.shapes | recipe.adapters.shapes
        room, trunk_config = measure.feature_room(self.store), self.config.trunk
        if earlier:  # the same computation again
            trunk_config = dataclasses.replace(trunk_config, mode=earlier["trunk"])
            room = room.only(earlier["trunk_place"])
        trunk = choose_trunk(trunk_config, recipe, shapes, self.splits, trials, room, self.config.evaluation.batch_size)
        return Job(number, self.left(trials), recipe, trunk, signature)

    def compute_features(self, jobs: Sequence[Job], plan_only: bool) -> None:
        """Runs the trunks of all groups over the data, or finds out how long that would take."""
        started = time.monotonic()
        trunks, batch_size = [job.trunk for job in jobs], self.config.evaluation.batch_size
        trunk_pass = Pass(trunks, self.subject.base, self.splits, batch_size, self.store)
        self.trunk_passes = int(trunk_pass.batches > 0)
        if trunk_pass.is_found:
            tell("frozen part over the data: found, as an earlier study left it")
        if plan_only:
            self.features, self.trunk_seconds = trunk_pass.imagined(), trunk_pass.estimated_seconds()
        else:
            with counted("frozen part over the data", trunk_pass.batches) as advance:
                self.features = trunk_pass.run(stop.checked(advance))
            self.trunk_seconds = time.monotonic() - started
        self._spend("trunk", time.monotonic() - started)

    def prepare(self, job: Job, most: int) -> tuple[Measured, list[Chunk]]:
        """Returns the group compiled in the way that is best on this machine, and its chunks; writes the plan.

        most: members of a chunk, 0 = as many as fit.
        """
        stop.check()
        started = time.monotonic()
        trials, signature, trunk = job.trials, job.signature, job.trunk
        trained, frozen = partition(self.subject.base, job.recipe.own)
        trained_bytes = checkpoint.content({**trained, **job.recipe.adapters.shapes})
        pretrained = {path: leaf for path, leaf in trained.items() if path in self.subject.pretrained}
        work = make_workload(
            job.recipe, trunk, frozen, pretrained, self.splits, self.features,
            trials=max(plan.chunks_of(trials, len(trials))[0], key=len),
            metric=self.config.evaluation.metric,
            eval_batch=self.config.evaluation.batch_size,
            trained_bytes=trained_bytes,
        )  # fmt: skip
        earlier = self.planned.take(signature)
        mode = "loop" if self.config.trunk.mode == "none" else self.config.execution.mode  # vmap shares what is frozen
        execution = dataclasses.replace(self.config.execution, chunk=most, mode=mode)
        measured = measure.choose(execution, work, planned.execution(earlier))
        chunks = chunks_left(
            self._named(trials),
            {identity: self.ids[identity] for identity in self.done},
            earlier["members"] if earlier else (),
            self._running(signature),
            measured,
        )
        parts = [list(chunk.trials.values()) for chunk in chunks]
        estimate = plan.estimate(measured, parts, trained_bytes, self.ledger.keeps(self._named(trials)))
        self._spend("compile", time.monotonic() - started)
        described = plan.describe(signature, trials, parts, measured, estimate, trunk)
        self.planned.groups.append({**described, "members": [list(chunk.trials) for chunk in chunks]})
        console.print(describe_group(self.planned.groups[-1]))
        self._write_plan()
        return measured, chunks

    def _running(self, signature: dict[str, Any]) -> Snapshot | None:
        """Returns what was being trained when the study was left, if it is of the group with this signature."""
        running = self.ledger.running
        if running is None or not planned.same_program(running.signature, signature):
            return None
        self.ledger.running = None
        return running

    def _write_plan(self, unseen_bytes: int = 0) -> dict[str, Any]:
        """Writes plan.json and returns it; `unseen_bytes` of memory are yet to be taken."""
        seconds = self.seconds | {"trunk": self.trunk_seconds}
        document = self.planned.document(self.workdir, len(self.ids), self.subject.base, seconds)
        document["process_bytes"] += unseen_bytes
        self.ledger.recorder.write("plan.json", document)
        return document

    def train(self, job: Job) -> None:
        """Trains the trials of a group to their ends; those that fail are recorded as such, and the others go on."""
        if is_first_process():
            checkpoint.save_base(self.workdir, self.subject.base)
        self.training.fail_orphans(job.number, self._named(job.trials))
        waiting, most = [job.trials], self.config.execution.chunk
        while waiting:
            part = job._replace(trials=self.left(waiting.pop()))
            if not part.trials:
                continue
            try:
                measured, chunks = self.prepare(part, most)
            except OutOfMemory as error:
                self.training.fail(job.number, self._named(part.trials), MemoryError(str(error)))
            except UserError:
                raise
            except Exception as error:  # whatever a model raises
                if isinstance(error, jax.errors.JaxRuntimeError) and len(part.trials) > 1:  # one of them may be why
                    middle = len(part.trials) // 2
                    waiting += [part.trials[middle:], part.trials[:middle]]
                else:
                    self.training.fail(job.number, self._named(part.trials), error)
            else:
                if smaller := self._train_chunks(job, measured, chunks):
                    console.print(f"out of memory with chunks of {measured.execution.size}: going on with {smaller}")
                    most = smaller
                    self.planned.groups.pop()
                    waiting.append(part.trials)
                del measured, chunks  # before the next ones ask for memory

    def _train_chunks(self, job: Job, measured: Measured, chunks: Sequence[Chunk]) -> int:
        started, before = time.monotonic(), self.training.evaluating_seconds
        smaller = self.training.train(job.number, job.signature, measured, chunks, self._after_chunk)
        evaluating = self.training.evaluating_seconds - before
        self._spend("eval", evaluating)
        self._spend("train", time.monotonic() - started - evaluating)
        for name, program in measured.group.programs.compiled.items():
            self._count_compiles(name, 1)
            self._count_compiles(f"{name}_after_compaction", len(program.executables) - 1)
        return smaller

    def _count_compiles(self, what: str, number: int) -> None:
        self.compiled[what] = self.compiled.get(what, 0) + number

    def _spend(self, what: str, seconds: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def end_plan(self) -> Results:
        """Prints what the whole study will take, and returns the results so far."""
        unseen = sum(array.nbytes for split in self.features for array in split.values())  # zeros take no memory yet
        document = self._write_plan(unseen)
        console.print(
            f"in all about {document['seconds']:.0f} s, {document['process_bytes'] / 1e9:.2f} GB of memory, "
            f"{document['disk_bytes'] / 1e6:.0f} MB on disk; the plan is in {self.workdir / 'plan.json'}"
        )
        return Results(self.workdir, list(self.done.values()))

    def _summarise(self) -> None:
        """Writes what has been found so far: after every chunk, and at the end."""
        counts = {"compiles": self.compiled, "trunk_passes": self.trunk_passes}
        document = summary.describe(self.ledger, len(self.ids), self.planned.groups, self.seconds, **counts)
        self.ledger.recorder.write("summary.json", document)

    def _after_chunk(self) -> None:
        self._summarise()
        self.reporting.update()

    def end(self) -> Results:
        """Writes summary and report, prints the best settings and the answer, and returns the results."""
        self.ledger.close()
        is_new = self.planned.groups or not records.is_whole(self.workdir / "summary.json")
        if is_new:  # else the summary is of the run that trained
            self._summarise()
        answer = self.reporting.end()
        self.seconds["report"] = self.reporting.seconds
        if is_new:
            self._summarise()
        summary.show(self.ledger, self.config.evaluation.metric, self.subject.larger_is_better, self.seconds)
        reporting.show(answer)
        return Results(self.workdir, [*self.done.values(), *self.ledger.failed.values()])
