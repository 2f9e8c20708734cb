"""A study: everything in one work directory, from a config to results. Starting it again continues it."""

import contextlib
import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from finetune import config as settings
from finetune.config import Config
from finetune.errors import OutOfMemory, UserError
from finetune.hosts import signals
from finetune.hosts.console import console, counted, tell
from finetune.hosts.processes import is_first, met_by_all
from finetune.member.params import named_parts, partition
from finetune.member.step import Recipe
from finetune.models import settled
from finetune.population import measure
from finetune.population.measure import Measured
from finetune.population.workload import make_workload
from finetune.storage import checkpoint, lock, records
from finetune.storage.snapshot import Saver, Snapshot
from finetune.study import plan, planned, reporting, seconds, summary, user_task
from finetune.study import workdir as directory
from finetune.study.agreement import agreed, check_command
from finetune.study.baseline import baseline
from finetune.study.chunk import Chunk, chunks_left
from finetune.study.display import Display, describe_group
from finetune.study.group import Job
from finetune.study.ledger import Ledger
from finetune.study.problem import Subject, load
from finetune.study.results import Results, collect
from finetune.study.training import Training
from finetune.trials import parents
from finetune.trials.assignment import axes as checked_axes
from finetune.trials.grid import Trial, asked
from finetune.trunk.choice import HostSplit, choose_trunk
from finetune.trunk.feature_pass import Pass
from finetune.trunk.feature_store import feature_store


def run(
    config: Config,
    workdir: str | Path,
    axes: Mapping[str, Iterable[Any]] | None = None,
    sweep: Iterable[Mapping[str, Any]] = ({},),
    plan_only: bool = False,
    retry: bool = False,
    fail_fast: bool = False,
    task: user_task.OwnTask | None = None,
) -> Results:
    """Trains every trial of `sweep` crossed with `axes` that `workdir` does not hold yet, and returns all results.

    axes: name -> values, lists or arrays of numbers or texts. Results are in the order in which trials are asked for.
    With `plan_only`, two steps of each group are measured and the plan is printed and written; nothing is trained.
    With `retry`, trials that have failed twice are tried again; with `fail_fast`, what the first one raises is raised.
    task: one of the user's own, or task(classes, example) that makes it, in place of the model of the settings.
    Raises UserError for a setting, a file or a work directory that cannot be used.
    """
    config = settings.checked(config)
    config = config if task is None else user_task.checked(config)
    workdir, axes = directory.checked(workdir), checked_axes({} if axes is None else axes)
    trials = parents.checked(asked(config, axes, sweep))
    check_command(config, trials, {"--plan_only": plan_only, "--retry": retry, "--fail_fast": fail_fast})
    if is_first():
        directory.prepare(workdir)
    else:
        console.quiet = True
    with lock.held(workdir) if is_first() else contextlib.nullcontext():
        return _run(config, workdir, trials, axes, Choices(plan_only, retry, fail_fast, task))


class Choices(NamedTuple):
    """What a run of a study is to do, as `run` says."""

    plan_only: bool
    retry: bool
    fail_fast: bool
    task: user_task.OwnTask | None


def _run(config: Config, workdir: Path, trials: list[Trial], axes: dict[str, Any], choices: Choices) -> Results:
    started = time.monotonic()
    config, declared = settled.settle(config)
    subject = agreed(load(config, choices.task))
    config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, metric=subject.metric))
    traits, model, examples = subject.traits, (subject.task, subject.shapes), len(subject.dataset.train["label"])
    groups = plan.group_trials(trials := traits.resolved(trials), *model, named_parts(config.parts), traits.mixed)
    recipes, told = plan.make_recipes(config, *model, groups, examples, traits)
    if is_first():
        directory.begin(config, workdir, subject, axes, tell)
    with contextlib.closing(_Study(config, workdir, subject, trials, choices)) as study:
        sizes = f"trials: {len(study.ids)}, done before: {len(study.done)}, groups: {len(groups)}"
        console.print(f"{subject}\n{sizes}{told}")
        for note in (*declared, *subject.dataset.notes):
            tell(f"note: {note}")
        signals.check()
        numbered = zip(range(len(groups)), groups, recipes, strict=True)
        jobs = [study.job(*each) for each in numbered if study.left(each[1])]
        study.spent.add({"load": time.monotonic() - started})
        study.compute_features(jobs, choices.plan_only)
        for job in jobs:
            if choices.plan_only:
                study.prepare(job, config.execution.chunk)
            else:
                study.train(job)
        return study.end_plan() if choices.plan_only else study.end()


class _Study:
    """The part of a run that goes over its groups, and records what comes out."""

    def __init__(self, config: Config, workdir: Path, subject: Subject, trials: Sequence[Trial], choices: Choices):
        self.config, self.workdir, self.subject = config, workdir, subject
        self.asked = [trial.id(subject.fingerprint) for trial in trials]
        self.ids = dict(zip(self.asked, trials, strict=True))
        self.ledger = Ledger(workdir, config.checkpoint, self.ids, choices.retry, tell)
        self.done, self.planned = self.ledger.done, planned.Planned(self.ledger.groups)
        self.spent, self.compiled = seconds.Spent(), Counter[str]()
        self.baseline = functools.cache(lambda: baseline(config.data.task, subject.task, subject.dataset))
        self.features, self.trunk_seconds, self.trunk_passes, self.jobs = list[HostSplit](), 0.0, 0, 0
        self.splits, self.store = subject.dataset[:3], feature_store(config.trunk)
        certain = self.ledger.certain()
        epochs = sum(trial.hparams["epochs"] for identity, trial in self.ids.items() if identity not in certain)
        chosen_on = subject.metric, subject.larger_is_better
        display = Display(len(self.ids), list(certain.values()), int(epochs), *chosen_on)
        saver = Saver(workdir, config.checkpoint.interval_seconds, is_first())
        self.reporting = reporting.Reporting(workdir, is_first())
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
        started, batch_size = time.monotonic(), self.config.evaluation.batch_size
        trunk_pass = Pass([job.trunk for job in jobs], self.subject.base, self.splits, batch_size, self.store)
        self.trunk_passes = int(trunk_pass.batches > 0)
        if trunk_pass.is_found:
            tell("frozen part over the data: found, as an earlier study left it")
        self.trunk_seconds, self.jobs = trunk_pass.estimated_seconds(), len(jobs)
        if plan_only:
            self.features = trunk_pass.imagined()
        else:
            with counted("frozen part over the data", trunk_pass.batches, self.trunk_seconds) as advance:
                self.features = trunk_pass.run(signals.checked(advance))
        self.spent.add({"trunk": time.monotonic() - started})

    def prepare(self, job: Job, most: int) -> tuple[Measured, list[Chunk]]:
        """Returns the group compiled in the way that is best on this machine, and its chunks; writes the plan.

        most: members of a chunk, 0 = as many as fit.
        """
        signals.check()
        started = time.monotonic()
        trials, signature, trunk = job.trials, job.signature, job.trunk
        trained, frozen = partition(self.subject.base, job.recipe.own)
        trained_bytes = checkpoint.content({**trained, **job.recipe.adapters.shapes})
        pretrained = {path: leaf for path, leaf in trained.items() if path in self.subject.pretrained}
        work = make_workload(
            job.recipe, trunk, frozen, pretrained, self.splits, self.features,
            trials=max(plan.chunks_of(trials, len(trials))[0], key=len),
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
        spent = time.monotonic() - started
        self.spent.add({"compile": spent})
        estimate = plan.estimate(measured, parts, trained_bytes, self.ledger.keeps(self._named(trials)), spent)
        described = plan.describe(signature, trials, parts, measured, estimate, trunk)
        self.planned.groups.append({**described, "members": [list(chunk.trials) for chunk in chunks]})
        console.print(describe_group(self.planned.groups[-1]))
        if is_first():
            self._write_plan()
        return measured, chunks

    def _running(self, signature: dict[str, Any]) -> Snapshot | None:
        """Returns what was being trained when the study was left, if it is of the group with this signature."""
        running = self.ledger.running
        if running is None or not planned.same_program(running.signature, signature):
            return None
        self.ledger.running = None
        return running if self.ledger.goes_on(running) else None

    def _write_plan(self, unseen_bytes: int = 0) -> dict[str, Any]:
        """Writes plan.json and returns it; `unseen_bytes` of memory are yet to be taken."""
        document = self.planned.document(self.workdir, len(self.ids), self.subject.base, self._planned_seconds())
        document["process_bytes"] += unseen_bytes
        self.ledger.recorder.write("plan.json", document)
        return document

    def _planned_seconds(self) -> dict[str, float]:
        return seconds.planned(self.spent.by_part["load"], self.trunk_seconds, self.planned.groups, self.ids.values())

    def train(self, job: Job) -> None:
        """Trains the trials of a group to their ends; those that fail are recorded as such, and the others go on."""
        if is_first():
            checkpoint.save_base(self.workdir, self.subject.base)
        self.training.settle(self._named(job.trials))
        self.training.fail_orphans(job.number, self._named(self.left(job.trials)))
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
                met_by_all(error)
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
        console.print(seconds.in_words(self._planned_seconds(), self.jobs - len(self.planned.groups)))
        with self.spent.while_training(measured.group.programs.compiled, self.training, self.reporting):
            smaller = self.training.train(job.number, job.signature, measured, chunks, self._after_chunk)
        for name, program in measured.group.programs.compiled.items():
            self.compiled[name] += 1
            self.compiled[f"{name}_after_compaction"] += len(program.executables) - 1
        return smaller

    def end_plan(self) -> Results:
        """Prints what the whole study will take, and returns the results so far."""
        if is_first():
            unseen = sum(array.nbytes for split in self.features for array in split.values())  # zeros take no room yet
            summary.show_plan(self.workdir / "plan.json", self._write_plan(unseen))
        return collect(self.workdir, self.asked, self.done)

    def _summarise(self) -> None:
        """Writes what has been found so far: after every chunk, and at the end."""
        if is_first():
            counts = {"compiles": self.compiled, "trunk_passes": self.trunk_passes, "baseline": self.baseline()}
            counts |= {"planned": self._planned_seconds(), "data": self.subject.dataset.facts}
            document = summary.describe(self.ledger, len(self.ids), self.planned.groups, self.spent.by_part, **counts)
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
        self.spent.by_part["report"] = self.reporting.seconds
        if is_new:
            self._summarise()
        summary.show(self.ledger, self.config.evaluation.metric, self.subject.larger_is_better, self.spent.by_part)
        reporting.show(answer)
        return collect(self.workdir, self.asked, {**self.ledger.failed, **self.done})
