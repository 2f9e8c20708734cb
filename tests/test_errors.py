"""What is said of a name that is not allowed: the names that are, and the one that was meant."""

import pytest

from finetune import config as settings
from finetune.errors import one_of
from finetune.trials import assignment


@pytest.mark.parametrize(
    "name, meant",
    [
        ("lr", "learning_rate"),
        ("LR", "learning_rate"),
        ("learning-rate", "learning_rate"),
        ("wd", "weight_decay"),
        ("bs", "batch_size"),
        ("batch", "batch_size"),
        ("epoch", "epochs"),
        ("num_train_epochs", "epochs"),
        ("dropout_rate", "dropout"),
        ("optimizer", "optimizer.name"),
        ("scheduler", "schedule"),
        ("max_grad_norm", "clip_norm"),
        ("warmup_ratio", "warmup_fraction"),
        ("learnin_rate", "learning_rate"),
    ],
)
def test_what_others_call_a_name_points_to_it(name, meant):
    said = str(one_of("axis", name, assignment.NAMES))
    assert said.endswith(f"; did you mean {meant!r}?")
    assert all(each in said for each in assignment.NAMES)


def test_a_setting_is_meant_by_its_last_part():
    names = [name for name, _ in settings.fields(settings.Config())]
    said = str(one_of("setting", "hparams.lr", names))
    assert said.endswith("; did you mean 'hparams.learning_rate'?")
    assert "hparams.learning_rate, " in said
    assert f"and {len(names) - 5} more" in said
    assert str(one_of("setting", "lr", names)).endswith("; did you mean 'hparams.learning_rate'?")


def test_nothing_is_meant_by_a_name_that_is_far_from_all():
    assert "did you mean" not in str(one_of("split folder", "cats", ["train", "validation", "test"]))
    assert "did you mean" not in str(one_of("axis", "l9", ["learning_rate", "dropout"]))
