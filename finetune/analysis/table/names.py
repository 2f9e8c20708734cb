"""What the name of a column says of it: chosen, an outcome, measured, or who ran it when and where."""

import re
from typing import Literal

_PREFIX = re.compile(r"^(?:params?|config|hparams?|hyperparameters?|hp|args)[._/:]+(?=.)", re.IGNORECASE)
_OUTCOME_PREFIX: tuple[str, ...] = (
    "metrics.",
    "metrics/",
    "metrics_",
    "summary.",
    "summary/",
    "user_attrs_",
    "user_attrs.",
)
_OUTCOME_PREFIX = (*_OUTCOME_PREFIX, "values_", "value_")

SEEDS = ("seed", "data_seed", "random_seed", "random_state", "repeat", "replicate", "fold")
IDS = ("id", "trial_id", "run_id", "number", "trial", "trial_number", "run")
STATUSES = ("status", "state", "done")
MEASURED = {  # what a trial cost or did: name of ours -> names of others
    "best_epoch": ("best_epoch",),
    "epochs": ("epochs",),
    "train_loss": ("train_loss", "train/loss", "training_loss"),
    "val_loss": ("val_loss", "val/loss", "validation_loss", "valid_loss", "eval_loss", "eval/loss"),
    "seconds": (
        "seconds", "duration", "runtime", "_runtime", "wall_time", "train_runtime", "mean_fit_time",
        "time_total_s", "time",
    ),
    "flops": ("flops", "total_flos"),
    "bytes": ("bytes",),
    "trained_parameters": ("trained_parameters", "trainable_parameters", "trainable_params"),
}  # fmt: skip

# Words that make a column an outcome, unless it also holds a word that only hyperparameters have.
_OUTCOME = re.compile(
    "loss|acc|accuracy|top1|top5|f1|auc|auroc|auprc|roc|mcc|bleu|rouge[12l]?|perplexity|ppl|error|err|rmse|mse|mae|mape|"
    "r2|recall|score|iou|dice|kappa|wer|cer|reward|metrics?|objective|brier|ece|logloss|nll|bpc|bpb|psnr|ssim|"
    "spearmanr?|pearsonr?"
)
_OBJECTIVE = re.compile("values?(_[0-9]+)?")  # of Optuna
_SPLIT = re.compile("train|training|val|valid|validation|test|eval|dev|best|final|last|mean|std|split[0-9]+")
_CHOSEN = re.compile(
    "size|batch|lr|weight|coef|coefficient|lambda|alpha|scale|smoothing|dropout|decay|threshold|function|fn|type|kind|"
    "fraction|ratio|examples|samples|epochs|augmentation|interpolation|scheduler|schedule|clip|norm|hidden|rate|"
    "strategy|freq|frequency|interval|every"
)
_WEIGHTED = re.compile(  # of an outcome, as in loss_weight
    "weight|coef|coefficient|lambda|scale|threshold|alpha|beta|gamma|margin|temperature|eps|epsilon|tau|smoothing|sigma"
)
_KNOWN = re.compile(  # words of which a name is a hyperparameter's whatever its values look like
    f"{_CHOSEN.pattern}|wd|momentum|beta[12]?|betas|gamma|eps|epsilon|tau|nu|c|l1|l2|sp|penalty|reg|regularization|layers?|"
    "depth|width|heads?|units|neurons|dims?|dimension|features|channels|filters|kernel|stride|trees|estimators|leaves|"
    "bins|subsample|colsample.*|degree|warmup|patience|temperature|margin|k|sigma|noise|factor|multiplier|optimizer|"
    "mixup|cutmix|jitter|rank|mask(ing)?|length|prob|probability|steps|iterations|precision|model|backbone|encoder|arch|"
    "architecture|method|algorithm|dataset|data|task|prompt|template|variant"
)
_PROVENANCE = re.compile(
    "ids?|uuid|uri|host|hostname|pid|ip|node|gpu|commit|git|user|notes|tags?|created|updated|started|ended|finished|"
    "sweep|url|hash|timestamp|time|datetime|date|runtime|duration|elapsed|seconds|artifact|logdir|wandb"
)
_PROVENANCE_NAME = re.compile(
    "name|run_?name|unnamed.*|column_[0-9]+|reason|error|params|flops|system_attrs.*|entity|train(ed|able)_param(eter)?s|"
    "(output|logging|log|save|checkpoint|cache|run)_?dir(_name|ectory)?|.*since_restore|experiment_(name|tag)|"
    "artifact_uri|display_?name|done"
)
# Words of columns that are chosen in one table and noted in another; their values tell.
_EITHER = re.compile(
    "timesteps|path|dir|directory|version|state|precision|memory|mem|vram|cost|energy|util|utilization|project|group|job"
)
_EITHER_NAME = re.compile("_?step|steps|global_step|iterations?|training_iteration|epoch|index|rank|bytes")
_MEASURED_PREFIX = re.compile(
    r"^(?:(?:train|training|eval|evaluation|val|valid|validation|test|dev|system|perf|timers?|profiler?|rollout)/|"
    r"(?:metrics|summary)[./])"
)
_MEASURED_NAME = re.compile(
    r"(.*_)?(per_(second|sec|s|ms|minute|hour)|throughput|fps|total_flos|flops|g?macs|mfu|"
    r"(tokens|samples|examples)_seen|num_input_tokens_seen|(param|weight|update)_norm|latency(_m?s)?|watts?|"
    r"(gpu|cpu|ram|vram|peak|max|cuda|used|allocated|reserved)(_[a-z]+)*_(memory|mem|mb|gb|mib|gib|util|utilization|hours)(_[a-z]+)?|"
    r"(memory|mem|vram|ram)_(gb|mb|gib|mib|bytes|used|allocated|reserved|peak|usage|percent)|"
    r"(best|last|final)_(step|epoch|iteration|iter)|[a-z_]+_bytes|emissions|co2.*|(fit|score|train|eval|inference|total|wall|epoch)_?(time|hours|minutes|seconds|runtime)(_m?s)?)"
)
_GRADIENT_NORM = re.compile(r"(.*_)?grad(ient)?_?norm(_[a-z]+)?")
_LIMIT = re.compile("max|maximum|clip|clipping|threshold|limit")  # of a gradient norm: a choice

Kind = Literal["measured", "provenance", "either", "outcome", "split"]


def short(column: str) -> str:
    """Returns the name of a column without the prefix that other tools put before hyperparameters.

    >>> short("params_lr"), short("config.optimizer.name"), short("param_C")
    ('lr', 'optimizer.name', 'C')
    """
    return _PREFIX.sub("", column)


def is_prefixed(column: str) -> bool:
    """Says whether a column has the prefix that other tools put before hyperparameters."""
    return _PREFIX.match(column) is not None


def bare(column: str) -> str:
    """Returns the name of a column in small letters, without the prefixes that other tools put before it."""
    return _plain(column).lower()


def _plain(column: str) -> str:
    name = short(column)
    for prefix in _OUTCOME_PREFIX:
        name = name.removeprefix(prefix)
    return name


def words(name: str) -> list[str]:
    """Returns the words of a name in small letters, without the prefixes that other tools put before it.

    >>> words("config.optimizerName"), words("eval/samples_per_second")
    (['optimizer', 'name'], ['eval', 'samples', 'per', 'second'])
    """
    split = re.sub(r"([a-z])([A-Z])", r"\1_\2", _plain(name)).lower()
    return [word for word in re.split(r"[^a-z0-9]+", split) if word]


def _has(name: str, pattern: re.Pattern[str]) -> bool:
    return any(pattern.fullmatch(word) for word in words(name))


def is_seed(name: str) -> bool:
    """Says whether a column holds the seeds of trials, or numbers of repeats."""
    return short(name).lower() in SEEDS or "seed" in words(name)


def is_known(name: str) -> bool:
    """Says whether a name is that of a hyperparameter whatever its values look like."""
    return _has(name, _KNOWN)


def is_noted(name: str) -> bool:
    """Says whether a name holds a word of who ran a trial when and where, as gpu in per_gpu_batch_size."""
    return _has(name, _PROVENANCE)


def kind(name: str) -> Kind | None:
    """Returns what a name says of a column, None if it may be a hyperparameter's.

    "either" is a name that is chosen in one table and noted in another. Outcomes and names of splits are such only
    where the column holds numbers: "loss" may be the name of one.
    """
    joined = "_".join(words(name))
    gradient = _GRADIENT_NORM.fullmatch(joined) and not _has(name, _LIMIT)
    if name.startswith("_") or _MEASURED_PREFIX.match(name.lower()) or gradient or _MEASURED_NAME.fullmatch(joined):
        return "measured"
    plain = short(name).lower()
    if _OBJECTIVE.fullmatch(plain):
        return "outcome"
    if _EITHER_NAME.fullmatch(plain):
        return "either"
    if _PROVENANCE_NAME.fullmatch(plain) or _PROVENANCE_NAME.fullmatch(joined):
        return "provenance"
    if is_noted(name):
        return "either" if is_known(name) else "provenance"
    if _has(name, _OUTCOME) and not _has(name, _WEIGHTED):
        return "outcome"
    if _has(name, _SPLIT) and not _has(name, _CHOSEN):
        return "split"
    return "either" if _has(name, _EITHER) else None


def is_technical(name: str) -> bool:
    """Says whether a column with the prefix of hyperparameters only says where a run wrote to, or what it is called."""
    return bool(_PROVENANCE_NAME.fullmatch(short(name).lower())) and short(name).lower() not in (
        "name",
        "reason",
        "error",
    )
