"""Which rows of a table repeat a setting: those that differ in seed, or in nothing that could have been chosen."""

import pandas as pd

from finetune.analysis.table import measured
from finetune.analysis.table.columns import DOUBTFUL, UNPREFIXED, Roles
from finetune.errors import UserError

_NAMED = 5  # hyperparameters that a proposed command still lists


def label(frame: pd.DataFrame, roles: Roles, settings: pd.Series, notes: list[str]) -> tuple[pd.Series, str]:
    """Returns (which repeat of its setting each trial is, how that is known): its seeds, or a count without any.

    settings holds a label for each trial's combination of hyperparameters.
    """
    varying = [column for column in roles.seeds if frame[column].nunique() > 1]
    count = settings.groupby(settings).cumcount()
    if not varying:
        if count.max() and (numbered := _numbered(frame, roles, settings)):
            return frame[numbered].astype(str), f"the {numbered} tells repeats apart"
        return count, "rows with the same hyperparameters are repeats" if count.max() else "no setting is repeated"
    labels = frame[varying[0]] if len(varying) == 1 else frame[varying].astype(str).agg("/".join, axis=1)
    known = " and ".join(varying)
    if len(varying) == 1 and labels.notna().all() and (count.max() > 0) and labels.nunique() == len(labels):
        notes.append(
            f"every trial has a {varying[0]} of its own: repeats of a setting are counted in order of appearance"
        )
        return count, f"every trial has a {known} of its own: repeats are counted in order of appearance"
    repeated = pd.DataFrame({"setting": settings, "seed": labels.astype(str)}).duplicated().sum()
    if repeated:
        notes.append(f"{repeated} trials repeat the hyperparameters and the seed of another")
    whole = len(varying) == 1 and pd.api.types.is_integer_dtype(labels)
    return labels if whole else labels.astype(str), f"{known} tells repeats apart"


def _numbered(frame: pd.DataFrame, roles: Roles, settings: pd.Series) -> str | None:
    """Returns the column that numbers the runs of each setting anew, as a column called run may."""
    column = roles.identity
    if column is None or not frame[column].duplicated().any():
        return None
    return None if pd.DataFrame({"setting": settings, "run": frame[column].astype(str)}).duplicated().any() else column


def check(frame: pd.DataFrame, roles: Roles, settings: pd.Series) -> str:
    """Raises UserError if rows that agree in setting and seed differ in a column that may have been chosen.

    Returns in words which such columns differ between the seeds of a setting, "" if none does.
    """
    doubtful = {
        column: why
        for column, why in roles.passed_over.items()
        if why in DOUBTFUL and not (why == UNPREFIXED and measured.is_counted(frame[column]))
    }
    seeded = pd.DataFrame({"setting": settings, **{seed: frame[seed].astype(str) for seed in roles.seeds}})
    groups = seeded.groupby(list(seeded.columns)).ngroup()
    for column, why in doubtful.items():
        if not (differ := _differing(frame[column], groups)).any():
            continue
        group = groups[differ].iloc[0]
        first, second = (cell[:30] for cell in frame[column].astype(str)[groups == group].drop_duplicates()[:2])
        chosen = list(roles.hyperparameters)
        named = ",".join([*chosen, column]) if len(chosen) <= _NAMED else f"NAME,NAME,{column}"
        raise UserError(
            f"{differ.sum():,} rows are repeats but for {column!r} ({first!r}, {second!r}), passed over ({why}), "
            f"allowed: --hyperparameters={named} if it was chosen, --ignore={column} if it was not"
        )
    differing = [column for column in doubtful if _differing(frame[column], settings).any()]
    return f"; they differ in {', '.join(differing)} too" if differing else ""


def _differing(column: pd.Series, groups: pd.Series) -> pd.Series:
    """Says of each row whether another one of its group has another cell."""
    return column.astype(str).groupby(groups).transform("nunique") > 1
