"""A search as a study of Optuna in a file: it opens in Optuna and its dashboard, and goes on from one begun there.

Each setting is a trial of Optuna: with its mean over the seeds of the search, or pruned where it was stopped, or failed
where it has no result. The file is Optuna's journal, lines of JSON.
"""

import json
import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetune.errors import UserError
from finetune.search.search import Outcomes
from finetune.search.space import LIST, LOG, Dimension, Space
from finetune.trials.assignment import Assignment, Value

_KIND, _ALLOWED = "journal:", "allowed: journal:FILE, a file of Optuna's JournalStorage or none yet"
_NAME, _OURS = "finetune", "finetune_setting"  # of a study that begins here; the attribute of trials that were run here


class Journal:
    """The only study of a journal, created where there is none; `text` is what --optuna says.

    before: how many trials it holds that a search is told of. Raises UserError for a file that holds something else.
    """

    def __init__(self, text: str, space: Space):
        self._file, self._space = _file(text), space
        self._storage = self._tried(lambda: _storage(self._file))
        names = self._tried(lambda: [study.study_name for study in self._storage.get_all_studies()])
        if len(names) > 1:
            raise UserError(f"--optuna is {text!r} with {len(names)} studies, allowed: a file with one, or none yet")
        self._study: Any = self._tried(lambda: _load(names[0], self._storage)) if names else None
        trials = self._study.get_trials(deepcopy=False) if self._study else []
        self._check(trials)
        self.before = len(trials)

    def begin(self, larger_is_better: bool) -> None:
        """Creates the study, or checks that its direction is that of the metric."""
        import optuna

        direction: Any = "maximize" if larger_is_better else "minimize"
        self._sign = 1 if larger_is_better else -1
        if self._study is None:
            create = optuna.create_study
            self._study = self._tried(lambda: create(storage=self._storage, study_name=_NAME, direction=direction))
        if [each.name.lower() for each in self._study.directions] != [direction]:
            raise UserError(f"--optuna is {str(self._file)!r}, a study that does not {direction} one value, allowed: "
                            "one that does, as the metric asks")  # fmt: skip

    def told(self, before: int) -> tuple[Outcomes, int]:
        """Returns what the first `before` trials of the study say, and how many say nothing: they lie elsewhere."""
        found, elsewhere = Outcomes([], []), 0
        for trial in self._study.get_trials(deepcopy=False)[:before]:
            setting = self._setting(trial.params)
            if setting is None:
                elsewhere += 1
            elif trial.state.name == "COMPLETE":
                found.told.append((setting, self._sign * trial.value))
            elif trial.state.name == "PRUNED" and trial.last_step is not None:
                value = self._sign * trial.intermediate_values[trial.last_step]
                found.stopped.append((setting, trial.last_step, value))
        return found, elsewhere

    def write(self, found: Outcomes, before: int) -> None:
        """Adds the settings that the study does not hold yet behind its first `before` trials."""
        from optuna.trial import TrialState

        there = {trial.user_attrs.get(_OURS) for trial in self._study.get_trials(deepcopy=False)[before:]}
        outcomes: list[tuple[Assignment, dict[str, Any]]] = [
            (setting, {"value": self._sign * value} if math.isfinite(value) else {"state": TrialState.FAIL})
            for setting, value in found.told
        ]
        for setting, when, value in found.stopped:
            reached = {when: self._sign * value} if math.isfinite(value) else {}
            outcomes.append((setting, {"state": TrialState.PRUNED, "intermediate_values": reached}))
        for setting, outcome in outcomes:
            if (key := _key(setting)) not in there:
                self._tried(lambda: self._add(setting, key, outcome))  # noqa: B023  # called at once

    def _add(self, setting: Assignment, key: str, outcome: dict[str, Any]) -> None:
        import optuna

        params: dict[str, Value] = {}
        kinds: dict[str, Any] = {}

        def value_of(dimension: Dimension) -> Value:
            params[dimension.key], kinds[dimension.key] = setting[dimension.name], _distribution(dimension)
            return setting[dimension.name]

        self._space.chosen(value_of)
        self._study.add_trial(
            optuna.trial.create_trial(params=params, distributions=kinds, user_attrs={_OURS: key}, **outcome)
        )

    def _setting(self, params: dict[str, Any]) -> Assignment | None:
        """Returns the assignment of a trial's parameters; None if it is not in the space."""
        left = dict(params)
        setting = self._space.held(lambda dimension: left.pop(dimension.key))
        return setting if not left else None

    def _check(self, trials: Iterable[Any]) -> None:
        """Raises UserError where Optuna would not take our trials beside those that are there."""
        from optuna.distributions import check_distribution_compatibility

        ours = {dimension.key: dimension for dimension in self._space.dimensions}
        there = {name: kind for trial in trials for name, kind in trial.distributions.items() if name in ours}
        for name, kind in there.items():
            try:
                check_distribution_compatibility(kind, _distribution(ours[name]))
            except ValueError:
                raise UserError(
                    f"--space={ours[name]} is not what {str(self._file)!r} says of {name}: {kind}, allowed: a range "
                    "where it has a range, and its list where it has a list"
                ) from None

    def _tried(self, call: Any) -> Any:
        """Returns what a call of Optuna gives; raises UserError for what it raises on a file that it cannot use."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is experimental, and of values that a later range lacks
                return call()
        except UserError:
            raise
        except Exception as error:  # whatever Optuna raises for a file that is none of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UserError(f"--optuna is {str(self._file)!r} ({reason}), {_ALLOWED}") from None


def _file(text: str) -> Path:
    if not text.startswith(_KIND) or not text.removeprefix(_KIND).strip():
        raise UserError(f"--optuna is {text!r}, {_ALLOWED}")
    file = Path(text.removeprefix(_KIND).strip())
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UserError(f"--optuna is {text!r}, {_ALLOWED}, in a directory that is there")
    return file


def _storage(file: Path) -> Any:
    import optuna  # slow to import
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.storages.JournalStorage(JournalFileBackend(str(file)))


def _load(name: str, storage: Any) -> Any:
    import optuna

    return optuna.load_study(study_name=name, storage=storage)


def _distribution(dimension: Dimension) -> Any:
    """Returns what Optuna calls a dimension."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.kind == LIST:
        return CategoricalDistribution(dimension.values)
    if dimension.is_integer:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.kind == LOG)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.kind == LOG)


def _key(setting: Assignment) -> str:
    return json.dumps(setting, sort_keys=True)
