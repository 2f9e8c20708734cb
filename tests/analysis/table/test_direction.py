"""Whether less or more is better: names of metrics of the field, what a user says against it, and ranks."""

import pandas as pd
import pytest

from finetune.analysis.table.direction import Direction, decide, from_ranks, infer
from finetune.errors import UserError

LOWER = (
    "loss eval/loss val_perplexity rmse test_error top1_error nll WER dice_loss log_loss ece val_mse bits_per_byte_bpb"
)
HIGHER = (
    "accuracy val_acc eval/f1 AUROC bleu rougeL r2 mcc exact_match_em neg_log_loss f1_score log_likelihood ndcg mIoU"
)
NOTHING = "score value x metric objective accuracy_gap loss_reduction std_accuracy weight"


@pytest.mark.parametrize("names, minimize", [(LOWER, True), (HIGHER, False), (NOTHING, None)])
def test_directions_of_names(names: str, minimize: bool | None) -> None:
    found = {name: infer(name) for name in names.split()}
    assert {name: each and each.minimize for name, each in found.items()} == dict.fromkeys(found, minimize)


def test_what_is_known_goes_before_what_a_name_means() -> None:
    study = Direction(True, "the study minimizes it")
    assert decide("accuracy", None, study) == decide("accuracy", True, study) == study
    with pytest.raises(UserError, match="--maximize is given for accuracy, but the study minimizes it, allowed"):
        decide("accuracy", False, study)


def test_a_user_decides_where_a_name_says_nothing_and_is_told_where_it_says_otherwise() -> None:
    with pytest.raises(UserError, match="--metric=score .* allowed: --minimize or --maximize"):
        decide("score", None, None)
    assert decide("score", False, None) == Direction(False, "--maximize says so")
    assert decide("loss", False, None) == Direction(False, "--maximize says so, though loss names loss")
    assert decide("val_loss", None, None) == Direction(True, "val_loss names loss")


@pytest.mark.parametrize(
    "scores, minimize", [([-0.6, -0.2, -0.4], False), ([3.0, 1.0, 2.0], True), ([1.0, 1.0, 1.0], None)]
)
def test_ranks_tell_the_direction(scores: list[float], minimize: bool | None) -> None:
    frame = pd.DataFrame({"mean_test_score": scores, "rank_test_score": [3, 1, 2]})
    found = from_ranks(frame, "mean_test_score")
    assert (found and found.minimize) == minimize
    assert from_ranks(frame, "rank_test_score") is None
