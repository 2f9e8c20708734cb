"""Parents: which trial of a study another one starts from, where `trainable` is a chain of stages."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from finetune.errors import UserError
from finetune.trials import chain
from finetune.trials.grid import Trial

_Key = tuple[str, float | int, float | int]  # a chain, seed and data_seed
_Row = Mapping[str, Any]  # of trials.jsonl
_Rows = Mapping[str, _Row]  # by id


def checked(trials: list[Trial]) -> list[Trial]:
    """Returns `trials`; raises UserError for a chain whose first stages no trial with the same seeds trains."""
    there = {_key(trial) for trial in trials}
    for trial in trials:
        wanted = _parents_key(trial)
        if wanted is not None and wanted not in there:
            whole, first = trial.choices["trainable"], wanted[0]
            raise UserError(
                f"trainable is {whole!r}, which starts from the best trial of {first!r} with the same seed and "
                f"data_seed, and there is none with seed {wanted[1]} and data_seed {wanted[2]}, allowed: a study of "
                f"both, such as --grid=trainable='{','.join(chain.with_shorter([whole]))}'"
            )
    return trials


class Parents(NamedTuple):
    """Which trials may be another one's parent, by id.

    wanted: of each trial that starts from another one, what that one has to be.
    candidates: those that are, in the order of the grid.

    The parent is the best of the candidates that have a result: by the metric that is chosen on, on the validation
    split, at its best epoch; of equals the first.
    """

    wanted: dict[str, _Key]
    candidates: dict[_Key, tuple[str, ...]]

    def parent(self, identity: str, values: Mapping[str, float]) -> str | None:
        """Returns the trial that one starts from, None if no candidate has a value; larger is better."""
        return self._best(self.wanted[identity], values)

    def line(self, identity: str, rows: _Rows, values: Mapping[str, float]) -> list[str]:
        """Returns the trial that one starts from, what that one started from, and so on; empty if there is none.

        rows: of trials that have ended; values: theirs.
        """
        parent = self.parent(identity, values)
        return [parent, *line_of(rows[parent])] if parent is not None else []

    def outdated(self, rows: _Rows) -> set[str]:
        """Returns those of the trials with `rows` that started from others than they would start from now."""
        values, among = values_of(rows.values()), self.wanted.keys() & rows.keys()
        return {each for each in among if self.line(each, rows, values) != line_of(rows[each])}

    def generations(self) -> list[str]:
        """Returns the trials that start from others, those first that others of them may start from."""
        return sorted(self.wanted, key=lambda each: len(chain.stages(self.wanted[each][0])))

    def needed(self, values: Mapping[str, float], done: Collection[str]) -> set[str]:
        """Returns the trials whose weights others, that are not `done`, will start from as far as `values` tell."""
        waiting = {key for identity, key in self.wanted.items() if identity not in done}
        return {best for key in waiting if (best := self._best(key, values)) is not None}

    def families(self, trials: Collection[str]) -> int:
        """Returns how many of these trials are kept at most for others to start from."""
        return sum(not set(trials).isdisjoint(self.candidates[key]) for key in set(self.wanted.values()))

    def _best(self, key: _Key, values: Mapping[str, float]) -> str | None:
        there = [identity for identity in self.candidates[key] if identity in values]
        return max(there, key=lambda identity: values[identity], default=None)


def values_of(rows: Iterable[_Row]) -> dict[str, float]:
    """Returns the value of each trial that has one, by id; larger is better."""
    return {row["id"]: row["best"]["value"] for row in rows if row["best"]}


def line_of(row: _Row) -> list[str]:
    """Returns the trial that one has started from, what that one had started from, and so on."""
    return [row["parent"], *row["ancestors"]] if row.get("parent") else []


def find(trials: Mapping[str, Trial]) -> Parents:
    """Returns the parents among trials by id."""
    by_key: dict[_Key, list[str]] = {}
    for identity, trial in trials.items():
        by_key.setdefault(_key(trial), []).append(identity)
    wanted = {identity: _parents_key(trial) for identity, trial in trials.items()}
    return Parents(
        {identity: key for identity, key in wanted.items() if key is not None},
        {key: tuple(identities) for key, identities in by_key.items()},
    )


def _key(trial: Trial) -> _Key:
    return trial.choices["trainable"], trial.hparams["seed"], trial.hparams["data_seed"]


def _parents_key(trial: Trial) -> _Key | None:
    shorter = chain.shorter(trial.choices["trainable"])
    return (shorter, trial.hparams["seed"], trial.hparams["data_seed"]) if shorter else None
