"""Studies of Optuna in a SQLite file, as tables: trials, scales, direction of each objective, and the sampler."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from finetune.analysis.table.direction import Direction
from finetune.errors import UserError, one_of

# Attributes that samplers leave in trials: prefix -> name. TPE leaves one only where it draws parameters together.
_ADAPTIVE = {
    "tpe:": "TPE",
    "cma:": "CMA-ES",
    "gp:": "Gaussian processes",
    "NSGAII": "NSGA-II",
    "nsga2": "NSGA-II",
    "NSGAIII": "NSGA-III",
    "nsga3": "NSGA-III",
}


def read(file: Path, name: str | None) -> Any:
    """Returns the optuna.Study `name` of a storage, or its only one; raises UserError if there is none."""
    import optuna  # slow to import, and most tables are no studies of it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{file}"
    try:
        names = [study.study_name for study in optuna.get_all_study_summaries(storage)]
    except Exception as error:  # whatever the database driver raises
        reason = str(error).splitlines()[0]
        raise UserError(f"--trials is {str(file)!r} ({reason}), allowed: an Optuna storage") from None
    if name is None and len(names) != 1:
        raise UserError(
            f"--trials is {str(file)!r} with {len(names)} studies, allowed: FILE#STUDY of {', '.join(names)}"
        )
    if name is not None and name not in names:
        raise one_of("study in --trials", name, names)
    return optuna.load_study(study_name=name or names[0], storage=storage)


def scales(study: Any) -> dict[str, str]:
    """Returns log or linear for each parameter that is a number."""
    return {
        parameter: "log" if distribution.log else "linear"
        for trial in study.trials
        for parameter, distribution in trial.distributions.items()
        if hasattr(distribution, "log")
    }


def directions(study: Any, frame: pd.DataFrame) -> dict[str, Direction]:
    """Returns the direction of each column of `study.trials_dataframe()` that holds an objective."""
    columns = [column for column in frame.columns if column == "value" or column.startswith(("value_", "values_"))]
    return {
        column: Direction(each.name == "MINIMIZE", f"the Optuna study {study.study_name!r} {each.name.lower()}s it")
        for column, each in zip(columns, study.directions, strict=True)
    }


def sampler(attributes: Iterable[str]) -> str | None:
    """Returns the name of the adaptive sampler that left these system attributes, None if none is known to have."""
    names = [name.removeprefix("system_attrs_") for name in attributes]
    return next((known for name in names for prefix, known in _ADAPTIVE.items() if name.startswith(prefix)), None)
