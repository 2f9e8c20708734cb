"""A study: everything in one work directory, from a config to results. Starting it again continues it."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune import config as settings
from finetune.config import Config
from finetune.hosts import signals
from finetune.hosts.console import console, tell
from finetune.hosts.processes import is_first
from finetune.member.objective import NO_OBJECTIVE, OwnObjective
from finetune.member.params import named_parts
from finetune.member.step import Recipe
from finetune.models import settled
from finetune.population.group import Group
from finetune.search.halving import Halving
from finetune.storage import checkpoint, lock, records
from finetune.storage.snapshot import Saver
from finetune.study import plan, reporting, seconds, summary, user_objective, user_task
from finetune.study import workdir as directory
from finetune.study.agreement import agreed, check_command
from finetune.study.baseline import baseline
from finetune.study.chunk import Chunk
from finetune.study.display import Display
from finetune.study.ledger import Ledger
from finetune.study.preparation import Preparation
from finetune.study.problem import Subject, load
from finetune.study.results import Results, collect
from finetune.study.training import Training, train_group
from finetune.trials import parents
from finetune.trials.assignment import axes as checked_axes
from finetune.trials.grid import Trial, asked, with_seeds


def run(
    config: Config,
    workdir: str | Path,
    grid: Mapping[str, Iterable[Any]] | None = None,
    sweep: Iterable[Mapping[str, Any]] = ({},),
    plan_only: bool = False,
    retry: bool = False,
    fail_fast: bool = False,
    task: user_task.OwnTask | None = None,
    seeds: int | None = None,
    loss: Callable[..., Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Results:
    """Trains every trial of `sweep` crossed with `grid` that `workdir` does not hold yet, and returns all results.

    grid: name -> values, lists or arrays of numbers or texts. seeds: each setting has the seeds 0 to `seeds` - 1.
    Results are in the order in which trials are asked for.
    With `plan_only`, two steps of each group are measured and the plan is printed and written; nothing is trained.
    With `retry`, trials that have failed twice are tried again; with `fail_fast`, what the first one raises is raised.
    task: one of the user's own, or task(classes, example) that makes it, in place of the model of the settings.
    loss, metrics: (outputs, batch, label_smoothing) -> loss of each example in place of that of the kind of task, and
    {name: (outputs, batch) -> value of each example, or a `Metric`} beside its metrics: pure functions of JAX.
    Raises UserError for a setting, a file or a work directory that cannot be used.
    """
    config, workdir = checked(config, task), directory.checked(workdir)
    choices = Choices(plan_only, retry, fail_fast, task, user_objective.checked(loss, metrics, task is not None))
    axes = with_seeds(checked_axes({} if grid is None else grid), seeds)
    trials = parents.checked(asked(config, axes, sweep))
    check_command(config, trials, {"--plan_only": plan_only, "--retry": retry, "--fail_fast": fail_fast})
    with held(workdir):
        study = Study(config, workdir, choices)
        results = study.train(trials, axes)
        study.end()
    return results


def checked(config: Config, task: user_task.OwnTask | None) -> Config:
    """Returns a config that can be used, with a task of the user's own if there is one."""
    config = settings.checked(config)
    return config if task is None else user_task.checked(config)


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Creates a work directory and holds its lock, where this is the process that writes."""
    if is_first():
        directory.prepare(workdir)
    else:
        console.quiet = True
    with lock.held(workdir) if is_first() else contextlib.nullcontext():
        yield


class Choices(NamedTuple):
    """What a run of a study is to do, as `run` says."""

    plan_only: bool = False
    retry: bool = False
    fail_fast: bool = False
    task: user_task.OwnTask | None = None
    own: OwnObjective = NO_OBJECTIVE
    halving: Halving | None = None  # what stops trials of a search before their end


class Study:
    """A study that is open, in a work directory that is held: it trains one wave of trials after the other.

    waves: how many there may be. Data, model, features and compiled programs stay from one to the next; what is done is
    read from the directory again, so that a wave is the same computation whether the study was just started or not.
    """

    def __init__(self, config: Config, workdir: Path, choices: Choices, waves: int = 1):
        started = time.monotonic()
        config, self._declared = settled.settle(config)
        subject = agreed(load(config, choices.task, choices.own))
        config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, metric=subject.metric))
        self._config, self._workdir, self._subject, self.choices = config, workdir, subject, choices
        self._spent = seconds.Spent()
        self._preparation = Preparation(config, workdir, subject, self._spent, waves)
        self._work: _Work | None = None
        self._is_new = True  # before its first wave
        self._spent.add({"load": time.monotonic() - started})

    def train(
        self, trials: Sequence[Trial], axes: Mapping[str, Any] | None = None, to_their_end: bool = False
    ) -> Results:
        """Trains those of `trials` that are not done, and returns the results of all.

        axes: of a grid. to_their_end: whether those that train now are not stopped, whatever the choices say.
        """
        started, config, workdir, subject = time.monotonic(), self._config, self._workdir, self._subject
        trials = subject.traits.resolved(trials)
        names = [trial.id(subject.fingerprint) for trial in trials]
        ids = dict(zip(names, trials, strict=True))
        groups, recipes, told = _groups(config, subject, trials)
        if self._is_new and is_first():
            directory.begin(config, workdir, subject, dict(axes or {}), tell)
        ended = (*records.DONE, records.STOPPED) if self.choices.halving else records.DONE
        ledger = Ledger(workdir, config.checkpoint, ids, self.choices.retry, tell, ended)
        halving = None if to_their_end else self.choices.halving
        self._preparation.begin(ids, ledger, halving)
        choices = self.choices._replace(halving=halving)
        with contextlib.closing(_training(config, workdir, subject, ids, ledger, choices)) as training:
            self._say(f"trials: {len(ids)}, done before: {len(ledger.done)}, groups: {len(groups)}{told}")
            signals.check()
            numbered = enumerate(zip(groups, recipes, strict=True))
            open_groups = [
                self._preparation.group(number, *each) for number, each in numbered if training.left(each[0])
            ]
            self._spent.add({"load": time.monotonic() - started})
            self._preparation.compute_features(open_groups, self.choices.plan_only)
            if self.choices.plan_only:
                self._preparation.plan(open_groups)
            else:
                self._work = _Work(config, workdir, subject, ids, ledger, self._spent, self._preparation, training)
                self._work.run(open_groups)
        self._is_new = False
        return collect(workdir, names, ledger.done if self.choices.plan_only else {**ledger.failed, **ledger.done})

    @property
    def larger_is_better(self) -> bool:
        """Whether more of the metric that trials are judged by is better."""
        return self._subject.larger_is_better

    def _say(self, trials: str) -> None:
        if not self._is_new:
            console.print(trials)
            return
        console.print(f"{self._subject}\n{trials}")
        for note in (*self._declared, *self._subject.dataset.notes):
            tell(f"note: {note}")

    def end(self) -> None:
        """Writes summary and report, and prints the best settings and the answer, where anything was to be trained."""
        if self._work is not None:
            self._work.end()


def _groups(
    config: Config, subject: Subject, trials: Sequence[Trial]
) -> tuple[list[dict[str, Trial]], list[Recipe], str]:
    """Returns the trials of each group by id, the groups' recipes, and lines that say what the user should know."""
    model, parts = (subject.task, subject.shapes), named_parts(config.parts)
    groups = plan.group_trials(trials, *model, parts, subject.traits.mixed)
    examples = len(subject.dataset.train["label"])
    recipes, told = plan.make_recipes(config, *model, groups, examples, subject.traits)
    return [{trial.id(subject.fingerprint): trial for trial in group} for group in groups], recipes, told


def _training(
    config: Config, workdir: Path, subject: Subject, ids: Mapping[str, Trial], ledger: Ledger, choices: Choices
) -> Training:
    certain = ledger.certain()
    epochs = int(sum(trial.hparams["epochs"] for identity, trial in ids.items() if identity not in certain))
    display = Display(len(ids), list(certain.values()), epochs, subject.metric, subject.larger_is_better)
    saver = Saver(workdir, config.checkpoint.interval_seconds, is_first())
    return Training(ledger, saver, display, subject.base, choices.fail_fast, choices.halving)


class _Work:
    """What training does to the parts of all groups of a study, as `training.Work` says, and what is written of it."""

    def __init__(
        self, config: Config, workdir: Path, subject: Subject, ids: Mapping[str, Trial], ledger: Ledger,
        spent: seconds.Spent, preparation: Preparation, training: Training,
    ):  # fmt: skip
        self._most, self._workdir, self._subject, self._ids = config.execution.chunk, workdir, subject, ids
        self._ledger, self._spent, self._preparation, self._training = ledger, spent, preparation, training
        self._reporting = reporting.Reporting(workdir, is_first())
        self._baseline = functools.cache(lambda: baseline(config.data.task, subject.task, subject.dataset))
        self.left, self.fail = training.left, training.fail

    def run(self, groups: Sequence[Group]) -> None:
        """Trains groups, each once those that its trials may start from have ended, and says what came out."""
        for group in groups:
            if is_first():
                checkpoint.save_base(self._workdir, self._subject.base)
            self._training.begin(group)
            train_group(group, self._most, self)
        self._ledger.close()

    def prepare(self, group: Group, most: int) -> list[Chunk]:
        chunks = self._preparation.prepare(group, most)
        console.print(self._preparation.in_words())
        return chunks

    def train(self, chunk: Chunk) -> None:
        with self._spent.while_training(chunk.group.programs.compiled, self._training):
            self._training.train(chunk)

    def shrink(self, size: int, smaller: int) -> None:
        console.print(f"out of memory with chunks of {size}: going on with {smaller}")
        self._preparation.planned.groups.pop()

    def ended(self) -> None:
        self._training.ended()
        self.summarise()
        self._reporting.update()

    def summarise(self) -> None:
        """Writes what has been found so far: after every chunk, and at the end."""
        if is_first():
            counts = {"compiles": self._spent.compiles, "trunk_passes": self._preparation.trunk_passes}
            counts |= {"baseline": self._baseline(), "planned": self._preparation.planned_seconds()}
            counts |= {"data": self._subject.dataset.facts}
            groups, spent = self._preparation.prepared, self._spent.by_part
            document = summary.describe(self._ledger, len(self._ids), groups, spent, **counts)
            self._ledger.recorder.write("summary.json", document)

    def end(self) -> None:
        """Writes summary and report, and prints the best settings and the answer."""
        is_new = self._preparation.prepared or not records.is_whole(self._workdir / "summary.json")
        if is_new:  # else the summary is of the run that trained
            self.summarise()
        answer = self._reporting.end()
        self._spent.by_part["report"] = self._reporting.seconds
        if is_new:
            self.summarise()
        metric, larger_is_better = self._subject.metric, self._subject.larger_is_better
        summary.show(self._ledger, metric, larger_is_better, self._spent.by_part)
        reporting.show(answer)
