"""Which columns of a table that came from elsewhere are hyperparameters, which are outcomes, and which are neither."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from finetune.errors import one_of

_PREFIX = re.compile(r"^(?:params?|config|hparams?|hyperparameters?|hp|args)[._/:]+(?=.)", re.IGNORECASE)
_OUTCOME_PREFIX = ("metrics.", "metrics/", "metrics_", "summary.", "summary/", "user_attrs_", "user_attrs.", "values_")

SEEDS = ("seed", "data_seed", "random_seed", "random_state", "repeat", "replicate", "fold")
IDS = ("id", "trial_id", "run_id", "number", "trial", "trial_number", "run")
STATUSES = ("status", "state")
_MEASURED = {  # what a trial cost or did: name of ours -> names of others
    "best_epoch": ("best_epoch",),
    "epochs": ("epochs",),
    "train_loss": ("train_loss", "train/loss", "training_loss"),
    "val_loss": ("val_loss", "val/loss", "validation_loss", "valid_loss", "eval_loss", "eval/loss"),
    "seconds": ("seconds", "duration", "runtime", "_runtime", "wall_time", "train_runtime", "mean_fit_time", "time"),
    "flops": ("flops", "total_flos"),
    "bytes": ("bytes",),
    "trained_parameters": ("trained_parameters", "trainable_parameters", "trainable_params"),
}

# Words in a column's name that make it an outcome, unless it also holds a word that only hyperparameters have.
_OUTCOME = re.compile(
    "loss|acc|accuracy|top1|top5|f1|auc|auroc|auprc|roc|mcc|bleu|rouge|perplexity|ppl|error|err|rmse|mse|mae|mape|r2|"
    "recall|score|iou|dice|kappa|wer|cer|reward|metrics?|objective|brier|ece|logloss|nll|bpc"
)
_SPLIT = re.compile("train|training|val|valid|validation|test|eval|dev|best|final|last|mean|std|split[0-9]+")
_HYPERPARAMETER = re.compile(
    "size|batch|lr|weight|coef|coefficient|lambda|alpha|scale|smoothing|dropout|decay|threshold|function|fn|type|kind|"
    "fraction|ratio|examples|samples|epochs|augmentation|interpolation|scheduler|schedule|clip|norm|hidden|rate"
)
_WEIGHTED = re.compile("weight|coef|coefficient|lambda|scale|threshold")  # of an outcome, as in loss_weight
_PROVENANCE = re.compile(
    "ids?|uuid|host|hostname|pid|gpu|commit|git|user|notes|tags|created|updated|started|ended|finished|sweep|path|dir|"
    "directory|url|hash|timestamp|time|datetime|date|runtime|duration|elapsed|seconds|version|state"
)
_PROVENANCE_NAME = re.compile(
    "name|_?step|steps|global_step|iterations?|epoch|index|rank|unnamed.*|reason|error|params|flops|bytes|system_attrs.*|"
    "group|project|entity|job|train(ed|able)_param(eter)?s"
)
_LONGEST_CATEGORY = 80  # characters: longer strings are notes
_MOST_CATEGORIES = 20


class Roles(NamedTuple):
    """What each column of a table is for; a name is None where the table has no such column."""

    metric: str
    test: str | None
    identity: str | None
    status: str | None
    seeds: tuple[str, ...]
    measured: dict[str, str]  # our name -> column
    hyperparameters: dict[str, str]  # name without prefix -> column; those that do not vary too
    passed_over: dict[str, str]  # column -> why


def short(column: str) -> str:
    """Returns the name of a column without the prefix that other tools put before hyperparameters.

    >>> short("params_lr"), short("config.optimizer.name"), short("param_C")
    ('lr', 'optimizer.name', 'C')
    """
    return _PREFIX.sub("", column)


def _find(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Returns the first column that goes by one of `names`, whatever its prefix and case."""
    bare = {_bare(column): column for column in reversed(columns)}
    return next((bare[name] for name in names if name in bare), None)


def _bare(column: str) -> str:
    name = short(column)
    for prefix in _OUTCOME_PREFIX:
        name = name.removeprefix(prefix)
    return name.lower()


def metric_column(columns: Sequence[str], metric: str) -> str:
    """Returns the column that holds `metric`; raises UserError naming the nearest if there is none."""
    found = metric if metric in columns else _find(columns, [metric.lower()])
    if found is None:
        raise one_of("--metric", metric, columns)
    return found


def assign(frame: pd.DataFrame, metric: str, hyperparameters: Sequence[str] | None) -> Roles:
    """Returns the role of each column; `hyperparameters` names those that are known to be some, if they are known."""
    columns = [str(column) for column in frame.columns]
    value = metric_column(columns, metric)
    plain = [column for column in columns if not _PREFIX.match(column)]
    found = {name: _find(columns if name == "epochs" else plain, names) for name, names in _MEASURED.items()}
    measured = {name: column for name, column in found.items() if column is not None}
    identity, status, test = (_find(plain, names) for names in (IDS, STATUSES, _names_on_test(value)))
    seeds = tuple(column for column in columns if short(column).lower() in SEEDS)
    passed_over: dict[str, str] = {}
    if hyperparameters is None:
        taken = {value, identity, status, test, *measured.values()} - {found["epochs"]}
        hyperparameters = [column for column in columns if column not in taken and column not in seeds]
        passed_over = _passed_over(frame[hyperparameters])
    chosen = [column for column in hyperparameters if column not in passed_over and column not in seeds]
    return Roles(value, test, identity, status, seeds, measured, _named(chosen), passed_over)


def _passed_over(frame: pd.DataFrame) -> dict[str, str]:
    """Returns why columns are no hyperparameters; where some that vary have the prefix of one, none without it is."""
    columns = list(frame.columns)
    reasons = {column: why for column in columns if (why := _why_not(frame[column], column))}
    if not any(_PREFIX.match(column) and frame[column].astype(str).nunique() > 1 for column in columns):
        return reasons
    plain = {column: "without the prefix of a hyperparameter" for column in columns if not _PREFIX.match(column)}
    return plain | {c: why for c, why in reasons.items() if _PREFIX.match(c) and why in (_TOO_MANY, _EMPTY)}


def say(passed_over: dict[str, str]) -> list[str]:
    """Returns sentences that name the columns passed over, one for each reason."""
    reasons = dict.fromkeys(passed_over.values())
    return [
        f"columns passed over ({why}): {', '.join(column for column, each in passed_over.items() if each == why)}"
        for why in reasons
    ]


def _names_on_test(metric: str) -> list[str]:
    bare = _bare(metric)
    base = re.sub(r"^(?:val|valid|validation|eval|dev)[_/. -]", "", bare)
    return [name for name in (f"test_{base}", f"test/{base}", f"test.{base}", f"test {base}") if name != bare]


def _named(columns: Sequence[str]) -> dict[str, str]:
    """Returns name -> column, without prefixes where that leaves the names distinct and free."""
    names: dict[str, str] = {}
    for column in columns:
        name = short(column)
        names[column if name in names or name in RESERVED else name] = column
    return {f"param_{name}" if name in RESERVED else name: column for name, column in names.items()}


RESERVED = {"id", "seed", "status", "value", "utility", "test", "n", "mean", "std", "low", "high", "test_mean"}
RESERVED |= {"diverged", *_MEASURED} - {"epochs"}
_TOO_MANY = "a text of its own in nearly every row"
_EMPTY = "empty"
_AN_OUTCOME = "they look like outcomes"


def _why_not(column: pd.Series, name: str) -> str | None:
    """Returns why a column is no hyperparameter, None if it may be one."""
    present = column.dropna()
    if not len(present):
        return _EMPTY
    if _PROVENANCE_NAME.fullmatch(short(name).lower()) or _has(name, _PROVENANCE):
        return "they say when, where or by whom"
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        return "times"
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        texts = present.astype(str)
        distinct = texts.nunique()
        many = distinct > _MOST_CATEGORIES and 2 * distinct > len(texts)
        return _TOO_MANY if many or texts.str.len().max() > _LONGEST_CATEGORY else None
    if _has(name, _OUTCOME) and not _has(name, _WEIGHTED):
        return _AN_OUTCOME
    return _AN_OUTCOME if _has(name, _SPLIT) and not _has(name, _HYPERPARAMETER) else None


def _has(name: str, words: re.Pattern[str]) -> bool:
    """Says whether one of the words of a column's name is among `words`."""
    parts = re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", short(name)).lower())
    return any(words.fullmatch(part) for part in parts)
