"""finetune propose WORKDIR_OR_TABLE: the settings to try next, as CSV, for a study of ours or for any table of trials.

A table needs --metric=NAME. Ranges are those that were tried, of a search its --space. Settings are chosen by Optuna's
estimator, from all that have a result.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from finetune.errors import UserError
from finetune.report import table_flags

if TYPE_CHECKING:  # they take a second to import
    from finetune.analysis.table.axis import Axis
    from finetune.analysis.table.trials import Trials
    from finetune.search.space import Dimension, Space

_MOST = 1000  # settings of a wave


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    table_flags.define(values)
    flags.DEFINE_integer("count", 16, "how many settings", 1, _MOST, flag_values=values)
    flags.DEFINE_integer("search_seed", 0, "of the settings that are chosen", 0, 2**31 - 1, flag_values=values)
    return values


def _parse(arguments: Sequence[str]) -> tuple[flags.FlagValues, str]:
    """Returns the flags and what is named; raises UserError for whatever is wrong with them."""
    values = _define_flags()
    try:
        named = values(["finetune propose", *arguments])[1:]
    except flags.Error as error:
        raise UserError(str(error)) from None
    if len(named) != 1:
        raise UserError(f"arguments are {' '.join(named)!r}, allowed: one work directory or table of trials")
    is_study = Path(named[0]).is_dir()
    if is_study and (given := table_flags.given(values)):
        raise UserError(f"--{given[0]} is given for a study, allowed: with a table only")
    if not is_study and not values.metric:
        raise UserError("--metric is missing, allowed: a column of the table, such as --metric=accuracy")
    table_flags.check(values)
    return values, named[0]


def space_of(trials: "Trials") -> "Space":
    """Returns the ranges that trials lie in, as a search says or as they were tried."""
    from finetune.config import Config
    from finetune.search.space import Space, parse

    if texts := (trials.provenance.get("search") or {}).get("space"):
        found, config = trials.provenance["config"], Config()
        config.trainable, config.optimizer.name = found["trainable"], found["optimizer"]["name"]
        config.optimizer.schedule = found["optimizer"]["schedule"]
        return parse(texts, config)
    return Space(tuple(map(_tried, trials.axes)), {})


def _tried(axis: "Axis") -> "Dimension":
    """Returns the range of an axis: numbers with fractions between the ends of those tried, else the list of them."""
    from finetune.search.space import LINEAR, LIST, LOG, Dimension

    fractions = axis.is_number and any(value != int(value) for value in axis.values)
    if not fractions or (axis.scale == LOG and axis.values[0] <= 0):
        return Dimension(axis.name, "", LIST, values=axis.values)
    kind = LOG if axis.scale == LOG else LINEAR
    return Dimension(axis.name, "", kind, float(axis.values[0]), float(axis.values[-1]))


def propose(trials: "Trials", count: int, seed: int) -> list[dict[str, Any]]:
    """Returns at most `count` settings to try next, none that was tried; raises UserError without a result."""
    from finetune.search import tpe

    space, known = space_of(trials), trials.settings()
    rows = [{**trials.fixed, **{name: _plain(row[name]) for name in trials.names}} for row in known.to_dict("records")]
    held = [space.held(lambda dimension: row[dimension.name]) for row in rows]  # noqa: B023  # called at once
    told = [(setting, float(mean)) for setting, mean in zip(held, known["mean"], strict=True) if setting is not None]
    if not told:
        raise UserError(f"{trials.source} has no result within the ranges that are searched, allowed: one at least")
    tried = [setting for setting, _ in told]
    found = tpe.ask(space, told, count, seed)
    return [setting for place, setting in enumerate(found) if setting not in tried and setting not in found[:place]]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _run(arguments: list[str]) -> None:
    values, named = _parse(arguments)
    from finetune.analysis.table.trials import read_study

    trials = read_study(Path(named)) if Path(named).is_dir() else table_flags.read(named, values)
    if not trials.axes:
        raise UserError(f"{named!r} has no hyperparameter with two values, allowed: one that varies")
    settings = propose(trials, values.count, values.search_seed)
    aim = "higher" if trials.maximize else "lower"
    tried = f"{len(trials.settings())} judged by {trials.metric}, {aim} is better"
    print(f"{len(settings)} settings to try next, after {tried}", file=sys.stderr)
    names = list(dict.fromkeys(name for setting in settings for name in setting))
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(settings)


def main() -> int:
    """Runs the command line and returns its exit status."""
    return table_flags.main(f"{__doc__}", _define_flags, _run)


if __name__ == "__main__":
    sys.exit(main())
