"""A search as a study: its waves one after the other, each from the results of those before it, and then the finalists.

Every wave extends the same study: what is done is found, so that a search that was stopped goes on by the same command.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from finetune.config import Config
from finetune.errors import UserError
from finetune.hosts.console import tell
from finetune.search import range_test
from finetune.search.halving import Halving
from finetune.search.journal import Journal
from finetune.search.search import RANGE, Outcomes, Search
from finetune.storage import records
from finetune.study import budget, user_objective
from finetune.study import workdir as directory
from finetune.study.budget import Budget
from finetune.study.results import Results
from finetune.study.run import Choices, Study, checked, held
from finetune.study.user_task import OwnTask
from finetune.trials import chain, parents
from finetune.trials.assignment import Assignment
from finetune.trials.grid import Trial, asked, with_seeds
from finetune.trials.parents import values_of

FILE = "search.json"
_EXTENDED = (
    "trials",
    "finalists",
    "finalist_seeds",
    "waves",
    "seeds",
    "spent",
)  # what a search may go on with others of


def explore(
    config: Config, workdir: str | Path, search: Search, seeds: int = 1, task: OwnTask | None = None,
    plan_only: bool = False, retry: bool = False, fail_fast: bool = False, optuna: str = "",
    minutes: float | None = None, loss: Callable[..., Any] | None = None, metrics: Mapping[str, Any] | None = None,
) -> Results:  # fmt: skip
    """Trains the settings of `search`, each with the seeds 0 to `seeds` - 1, and returns all results as `run` does.

    task, loss, metrics and the rest: as of `run`; with plan_only the first wave is measured. optuna: journal:FILE,
    where the search is a study of Optuna too, which it goes on from. minutes: no wave but the first begins that would
    not end in time. Raises UserError as `run` does, for a search that makes no sense, and for a directory that holds
    another one, or a study that was no search.
    """
    config, workdir, search = checked(config, task), directory.checked(workdir), search.checked()
    own = user_objective.checked(loss, metrics, task is not None)
    with_seeds({}, seeds)  # raises for no number of seeds
    if search.halving and seeds > 1:
        raise UserError(f"--seeds is {seeds} with --halving, allowed: 1, since each trial is stopped on its own; "
                        "--finalists gives more seeds where they decide")  # fmt: skip
    budget.check(minutes, search.waves)
    if jax.process_count() > 1:
        raise UserError("--space is given to several processes, allowed: one, with all devices of its machine")
    with held(workdir):
        journal = Journal(optuna, search.space) if optuna else None
        before = _begin(workdir, search, seeds, journal.before if journal else 0, journal is not None)
        choices = Choices(plan_only, retry, fail_fast, task, own, search.halving)
        study = Study(config, workdir, choices, search.waves + 1)
        if journal is not None:
            journal.begin(study.larger_is_better)
        elsewhere = _elsewhere(journal, before) if journal and before else Outcomes([], [])
        time = Budget(minutes, workdir / FILE)
        return _Exploration(study, config, search, seeds, time, journal, before).run(elsewhere)


class _Exploration(NamedTuple):
    """What the waves of a search have in common. before: trials that the journal held when it began."""

    study: Study
    config: Config
    search: Search
    seeds: int
    time: Budget
    journal: Journal | None
    before: int

    def run(self, elsewhere: Outcomes) -> Results:
        """Trains waves and finalists, and returns all results; `elsewhere`: what other settings have come to."""
        study, search = self.study, self.search
        settings, found = list[Assignment](), Outcomes([], [])
        for number in range(search.waves):
            new = search.wave(number, *found.after(elsewhere))
            if number and not self._fits(number, len(new)):
                break
            settings += new
            if not settings:
                raise UserError(
                    f"--search_seed is {search.seed}, whose {search.method} settings --optuna holds already, allowed: "
                    "another seed, or --search=tpe"
                )
            tell(f"wave {number + 1} of {search.waves}: {len(new)} settings by {search.method}")
            results = study.train(self._asked(settings, range(self.seeds)))
            if study.choices.plan_only:
                self._say_what_fits()
                return results
            found = _outcomes(settings, results, self.seeds)
            self.time.ended(number)
            if self.journal is not None:
                self.journal.write(found, self.before)
        if search.method == RANGE:
            _say_ends(self.config.hparams.epochs, results)
            return results
        finalists = search.best(found.told)
        if finalists and self._runs_of_finalists > 0:
            tell(f"finalists: the best {len(finalists)} settings, with {search.finalist_seeds} seeds each")
            more = self._asked(finalists, range(self.seeds, search.finalist_seeds))
            results = study.train(self._asked(settings, range(self.seeds)) + more, to_their_end=True)
        study.end()
        return results

    def _asked(self, settings: Sequence[Assignment], seeds: range) -> list[Trial]:
        trials = parents.checked(asked(self.config, {}, _seeded(settings, seeds)))
        if self.search.halving:
            _check_halving(self.search.halving, trials)
        return trials

    @property
    def _runs_of_finalists(self) -> int:
        return self.search.finalists * max(0, self.search.finalist_seeds - self.seeds)

    def _fits(self, wave: int, settings: int) -> bool:
        """Says whether there is time for a wave, and for the finalists after it; tells where there is not."""
        fits = self.time.fits(wave, settings * self.seeds + self._runs_of_finalists)
        if not fits:
            tell(f"note: {wave} of {self.search.waves} waves fit into {self.time.minutes:g} minutes, of which "
                 f"{self.time.seconds / 60:.1f} are spent")  # fmt: skip
        return fits

    def _say_what_fits(self) -> None:
        """Tells how many settings are tried in the time there is, as the first wave is planned."""
        if self.time.minutes is None:
            return
        runs = self.time.possible_runs() - self._runs_of_finalists
        ends = map(self.search.until, range(self.search.waves))
        fitting = [end for end in ends if end * self.seeds <= runs]
        finalists = ", and the finalists" if fitting and self._runs_of_finalists else ""
        tell(f"in {self.time.minutes:g} minutes fit {len(fitting)} of {self.search.waves} waves, "
             f"{max(fitting, default=0)} of {self.search.trials} settings{finalists}")  # fmt: skip


def _say_ends(epochs: int, results: Results) -> None:
    """Tells between which learning rates to search, after a range test."""
    losses: dict[float, list[float]] = {}
    for row in results.trials:
        loss = row["metrics"].get("val_loss") if row["status"] == records.COMPLETE else None
        losses.setdefault(row["hparams"][range_test.RATE], []).append(math.inf if loss is None else loss)
    means = {rate: sum(each) / len(each) for rate, each in sorted(losses.items())}
    found = range_test.ends(list(means), list(means.values()), epochs)
    told = ", ".join(f"{rate:.2g}: {loss:.4g}" for rate, loss in means.items())
    tell(f"validation loss after an epoch, by learning rate: {told}")
    if found is None:
        rises = list(means.values())[-1] > next(iter(means.values()))
        hint = "the highest only lose, so that an epoch may be too short" if rises else "try higher ones"
        tell(f"no rate has learnt anything in an epoch: nothing is proposed; {hint}")
        return
    sides = [side for side, beyond in zip(("lower", "higher"), found.beyond, strict=True) if beyond]
    tell(f"search next, in trainings of {epochs} epochs: {found}" + (
        f"; {' and '.join(sides)} rates may do as well, since the test ended before they failed" if sides else ""
    ))  # fmt: skip
    tell("an epoch does not tell which rate to use: there is no answer, and no report")


def _elsewhere(journal: Journal, before: int) -> Outcomes:
    """Returns what the study of Optuna held when the search began."""
    found, others = journal.told(before)
    used = len(found.told) + len(found.stopped)
    tell(f"note: the search goes on from {used} trials of Optuna" + (
        f"; {others} others lie outside of --space, or vary what it does not" if others else ""
    ))  # fmt: skip
    return found


def _check_halving(halving: Halving, trials: Sequence[Trial]) -> None:
    """Raises UserError for trials that cannot be stopped on their way."""
    for trial in trials:
        if chain.shorter(trial.choices["trainable"]):
            raise UserError(f"trainable is {trial.choices['trainable']!r} with --halving, allowed: one that starts "
                            "from no other trial")  # fmt: skip
    most = max(int(trial.hparams["epochs"]) for trial in trials)
    if not halving.rungs(most):
        raise UserError(f"--halving_start is {halving.start:g}, where no trial of at most {most} epochs can be "
                        "stopped, allowed: a share with an epoch behind it, or more epochs")  # fmt: skip


def _seeded(settings: Sequence[Assignment], seeds: range) -> list[Assignment]:
    return [setting | {"seed": seed} for setting in settings for seed in seeds]


def _begin(workdir: Path, search: Search, seeds: int, before: int, in_optuna: bool) -> int:
    """Writes how settings are chosen, and returns how many trials of Optuna the search has begun after.

    Raises UserError where the directory holds trials that were chosen otherwise, and for more seeds of settings whose
    means Optuna has, where no value can be changed.
    """
    note = search._asdict() | {"space": list(map(str, search.space.dimensions)), "seeds": seeds}
    note["halving"] = search.halving._asdict() if search.halving else None
    earlier = records.read_document(workdir / FILE)
    if not earlier and records.lines(workdir / "trials.jsonl").rows:
        raise UserError(f"--workdir is {str(workdir)!r}, which holds a study without --space, allowed: a new directory")
    note |= {"spent": earlier["spent"]} if "spent" in earlier else {}
    note["optuna_before"] = earlier.get("optuna_before", 0) if earlier else before
    for name in sorted(note.keys() - set(_EXTENDED)) if earlier else ():
        if (was := earlier.get(name)) != note[name]:
            raise UserError(
                f"--workdir is {str(workdir)!r}, a search with {name} {was!r}, not {note[name]!r}, allowed: a "
                "new directory, or that search with more trials, waves, seeds or finalists"
            )
    if in_optuna and earlier and earlier["seeds"] != seeds:
        raise UserError(
            f"--seeds is {seeds} with --optuna, allowed: {earlier['seeds']}, as the search was begun, since no value "
            "in Optuna can be changed; --finalists gives more seeds where they decide"
        )
    records.write(workdir / FILE, note)
    return int(note["optuna_before"])


def _outcomes(settings: Sequence[Assignment], results: Results, seeds: int) -> Outcomes:
    """Returns what each setting reached: the mean over its seeds of the metric, larger is better, -inf if it diverged.

    A trial that failed says nothing of its setting; one whose trials have all failed comes last. Those that were
    stopped are apart: what they had reached is no result.
    """
    values = values_of(row for row in results.trials if row["status"] == records.COMPLETE)
    values |= {row["id"]: -math.inf for row in results.trials if row["status"] == records.DIVERGED}
    found = Outcomes([], [])
    for place, setting in enumerate(settings):
        rows = results.trials[place * seeds : (place + 1) * seeds]
        if rows[0]["status"] == records.STOPPED:
            out = rows[0]["halving"]["out"]
            value = out["value"] if out["value"] is not None else -math.inf
            found.stopped.append((setting, out["epoch"], value))
            continue
        known = [values[row["id"]] for row in rows if row["id"] in values]
        found.told.append((setting, sum(known) / len(known) if known else -math.inf))
    return found
