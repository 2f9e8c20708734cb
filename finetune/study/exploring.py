"""A search as a study: its waves one after the other, each from the results of those before it, and then the finalists.

Every wave extends the same study: what is done is found, so that a search that was stopped goes on by the same command.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import jax

from finetune.config import Config
from finetune.errors import UserError
from finetune.hosts.console import tell
from finetune.search.search import Search
from finetune.storage import records
from finetune.study import workdir as directory
from finetune.study.results import Results
from finetune.study.run import Choices, Study, checked, held
from finetune.study.user_task import OwnTask
from finetune.trials import parents
from finetune.trials.assignment import Assignment
from finetune.trials.grid import Trial, asked, with_seeds
from finetune.trials.parents import values_of

FILE = "search.json"
_EXTENDED = ("trials", "finalists", "finalist_seeds", "waves", "seeds")  # what a search may go on with others of


def explore(
    config: Config, workdir: str | Path, search: Search, seeds: int = 1, task: OwnTask | None = None, **choices: bool
) -> Results:
    """Trains the settings of `search`, each with the seeds 0 to `seeds` - 1, and returns all results as `run` does.

    task, choices: as of `run`; with plan_only the first wave is measured. Raises UserError as `run` does, for a search
    that makes no sense, and for a directory that holds another one, or a study that was no search.
    """
    config, workdir = checked(config, task), directory.checked(workdir)
    search = search.checked()
    with_seeds({}, seeds)  # raises for no number of seeds
    if jax.process_count() > 1:
        raise UserError("--space is given to several processes, allowed: one, with all devices of its machine")
    with held(workdir):
        _begin(workdir, search, seeds)
        return _explore(Study(config, workdir, Choices(task=task, **choices), search.waves + 1), config, search, seeds)


def _explore(study: Study, config: Config, search: Search, seeds: int) -> Results:
    settings, reached = list[Assignment](), list[float]()
    for number in range(search.waves):
        new = search.wave(number, list(zip(settings, reached, strict=True)))
        settings += new
        tell(f"wave {number + 1} of {search.waves}: {len(new)} settings by {search.method}")
        results = study.train(_trials(config, settings, range(seeds)))
        if study.choices.plan_only:
            return results
        reached = _reached(results, seeds)
    finalists = search.best(list(zip(settings, reached, strict=True)))
    if finalists and search.finalist_seeds > seeds:
        tell(f"finalists: the best {len(finalists)} settings, with {search.finalist_seeds} seeds each")
        more = _trials(config, finalists, range(seeds, search.finalist_seeds))
        results = study.train(_trials(config, settings, range(seeds)) + more)
    study.end()
    return results


def _trials(config: Config, settings: Sequence[Assignment], seeds: range) -> list[Trial]:
    return parents.checked(asked(config, {}, _seeded(settings, seeds)))


def _seeded(settings: Sequence[Assignment], seeds: range) -> list[Assignment]:
    return [setting | {"seed": seed} for setting in settings for seed in seeds]


def _begin(workdir: Path, search: Search, seeds: int) -> None:
    """Writes how settings are chosen; raises UserError where the directory holds trials that were chosen otherwise."""
    note = search._asdict() | {"space": list(map(str, search.space.dimensions)), "seeds": seeds}
    earlier = records.read_document(workdir / FILE)
    if not earlier and records.lines(workdir / "trials.jsonl").rows:
        raise UserError(f"--workdir is {str(workdir)!r}, which holds a study without --space, allowed: a new directory")
    for name in earlier.keys() & note.keys() - set(_EXTENDED):
        if (was := earlier[name]) != note[name]:
            raise UserError(
                f"--workdir is {str(workdir)!r}, a search with {name} {was!r}, not {note[name]!r}, allowed: a "
                "new directory, or that search with more trials, waves, seeds or finalists"
            )
    records.write(workdir / FILE, note)


def _reached(results: Results, seeds: int) -> list[float]:
    """Returns what each setting reached: the mean over its seeds of the metric, larger is better, -inf if it diverged.

    A trial that failed says nothing of its setting; one whose trials have all failed comes last.
    """
    values = values_of(row for row in results.trials if row["status"] == records.COMPLETE)
    values |= {row["id"]: -math.inf for row in results.trials if row["status"] == records.DIVERGED}
    ids = [row["id"] for row in results.trials]
    each = (ids[first : first + seeds] for first in range(0, len(ids), seeds))
    known = ([values[identity] for identity in of_setting if identity in values] for of_setting in each)
    return [sum(of_setting) / len(of_setting) if of_setting else -math.inf for of_setting in known]
