"""Whether less or more of a metric is better: what the table says, what the user says, else what its name means."""

import re
from typing import NamedTuple

import pandas as pd

from finetune.analysis.table.names import words
from finetune.errors import UserError

# The last word of a name that is among these decides: a dice_loss is a loss, a top1_error an error.
_LOWER = re.compile(
    "loss|losses|logloss|error|errors|err|perplexity|ppl|rmse|mse|mae|mape|msle|rmsle|nll|wer|cer|ter|der|eer|bpc|bpb|"
    "brier|ece|deviance|regret|crossentropy|entropy|fid|kid|divergence|kl|distance|hamming"
)
_HIGHER = re.compile(
    "acc|accuracy|accuracies|top1|top5|f1|f2|fbeta|auc|auroc|auprc|auroc|roc|ap|map|mcc|matthews|bleu|sacrebleu|chrf|"
    "rouge[12l]?|rougelsum|meteor|comet|r2|recall|precision|sensitivity|specificity|iou|miou|dice|kappa|em|"
    "ndcg|mrr|reward|likelihood|psnr|ssim|pearson|pearsonr|spearman|spearmanr|correlation|hits|success|winrate|pass"
)
_NEGATED = re.compile("neg|negative|minus")
_ABOUT = re.compile("gap|drop|reduction|improvement|gain|delta|diff|difference|change|std|var|variance|stderr|sem")


class Direction(NamedTuple):
    """minimize: less is better; why: how that is known, as the end of a sentence."""

    minimize: bool
    why: str

    @property
    def word(self) -> str:
        """minimize or maximize."""
        return "minimize" if self.minimize else "maximize"


def infer(name: str) -> Direction | None:
    """Returns the direction that a metric's name means, None if it says nothing.

    >>> infer("eval_loss").minimize, infer("neg_log_loss").minimize, infer("score")
    (True, False, None)
    """
    found: list[str] = []
    for parts in (words(name), words(name.lower())):  # mIoU is one word
        found = found or [word for word in parts if _LOWER.fullmatch(word) or _HIGHER.fullmatch(word)]
    if not found or any(_ABOUT.fullmatch(word) for word in parts):
        return None
    lower = bool(_LOWER.fullmatch(found[-1])) != any(_NEGATED.fullmatch(word) for word in parts)
    sign = "" if not any(_NEGATED.fullmatch(word) for word in parts) else "negated "
    return Direction(lower, f"{name} names {sign}{found[-1]}")


def decide(name: str, asked: bool | None, known: Direction | None) -> Direction:
    """Returns whether the metric `name` is minimised.

    asked: what the user says, None if nothing. known: what the table says of this column, such as a study of Optuna
    that minimises it; what the user says must agree with it. Raises UserError if they do not, or if nothing is said.
    """
    if known is not None:
        if asked is not None and asked != known.minimize:
            flag = "--minimize" if asked else "--maximize"
            raise UserError(f"{flag} is given for {name}, but {known.why}, allowed: its own direction")
        return known
    inferred = infer(name)
    if asked is None:
        if inferred is None:
            raise UserError(
                f"--metric={name} does not say by its name whether more or less is better, allowed: --minimize "
                "or --maximize beside it"
            )
        return inferred
    why = f"--{'minimize' if asked else 'maximize'} says so"
    if inferred is not None and inferred.minimize != asked:
        why += f", though {inferred.why}"
    return Direction(asked, why)


def from_ranks(frame: pd.DataFrame, column: str) -> Direction | None:
    """Returns the direction that ranks beside a mean score tell, as scikit-learn writes them; None without ranks."""
    ranks = column.replace("mean_", "rank_", 1)
    if ranks == column or ranks not in frame.columns:
        return None
    order = frame[[ranks, column]].apply(pd.to_numeric, errors="coerce").dropna().sort_values(ranks)
    if len(order) < 2 or order[column].iloc[0] == order[column].iloc[-1]:
        return None
    return Direction(bool(order[column].iloc[0] < order[column].iloc[-1]), f"{ranks} ranks it so")
