"""What a hyperparameter may be, and how those of a population are stacked."""

import dataclasses

import jax
import numpy as np
import pytest

from finetune.config import HparamsConfig
from finetune.errors import UserError
from finetune.trials import hparams
from tests.helpers import tasks


def test_config_and_program_name_the_same_hyperparameters() -> None:
    assert {field.name for field in dataclasses.fields(HparamsConfig)} == set(hparams.NAMES) == set(hparams.RANGES)


def test_the_defaults_are_allowed() -> None:
    assert hparams.from_config(HparamsConfig()) == dataclasses.asdict(HparamsConfig())


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("learning_rate", "1e-3", 0.001),
        ("learning_rate", 0, 0.0),
        ("warmup_fraction", 1.0, 1.0),
        ("layer_decay", 1, 1.0),
        ("batch_size", "32", 32),
        ("batch_size", 32.0, 32),
        ("seed", np.int64(7), 7),
        ("seed", 0, 0),
    ],
)
def test_check_gives_plain_numbers(name: str, value: object, wanted: float) -> None:
    checked = hparams.check({name: value})
    assert checked == {name: wanted}
    assert type(checked[name]) is type(wanted)


@pytest.mark.parametrize(
    "name, value, line",
    [
        ("learning_rate", -1, "learning_rate is -1, allowed: >= 0 and finite"),
        ("learning_rate", "inf", "allowed: >= 0 and finite"),
        ("learning_rate", "nan", "allowed: >= 0 and finite"),
        ("learning_rate", "fast", "learning_rate is 'fast', allowed: a number, >= 0 and finite"),
        ("learning_rate", None, "learning_rate is None, allowed: a number"),
        ("learning_rate", [1, 2], "allowed: a number"),
        ("warmup_fraction", 1.01, "allowed: 0 <= value <= 1"),
        ("dropout", 1, "dropout is 1, allowed: 0 <= value < 1"),
        ("label_smoothing", 1.0, "allowed: 0 <= value < 1"),
        ("momentum", 1.0, "allowed: 0 <= value < 1"),
        ("beta1", 1.0, "allowed: 0 <= value < 1"),
        ("layer_decay", 0, "layer_decay is 0, allowed: 0 < value <= 1"),
        ("layer_decay", 1.5, "allowed: 0 < value <= 1"),
        ("beta2", -0.1, "allowed: 0 <= value < 1"),
        ("batch_size", 0, "batch_size is 0"),
        ("batch_size", 1.5, "batch_size is 1.5, allowed: whole numbers"),
        ("epochs", 0, "epochs is 0"),
        ("seed", -1, "seed is -1"),
        ("data_seed", 2**31, "data_seed is 2147483648"),
        ("learning_rat", 1, "did you mean 'learning_rate'"),
    ],
)
def test_values_that_are_not_allowed(name: str, value: object, line: str) -> None:
    with pytest.raises(UserError, match=line):
        hparams.check({name: value})


def test_stack_makes_columns_and_ghosts_that_never_train() -> None:
    stacked = hparams.stack([tasks.row(learning_rate=0.5, seed=1), tasks.row(learning_rate=0.25, seed=2)], 4)
    np.testing.assert_array_equal(stacked.learning_rate[:2], [0.5, 0.25])
    np.testing.assert_array_equal(stacked.seed[:2], [1, 2])
    np.testing.assert_array_equal(stacked.epochs, [2, 2, 0, 0])
    for name, column in stacked._asdict().items():
        assert column.shape == (4,)
        assert column.dtype == (np.int32 if name in hparams.INTEGERS else np.float32), name


def test_stack_follows_double_precision() -> None:
    with jax.enable_x64(True):
        stacked = hparams.stack([tasks.row()], 1)
    assert stacked.learning_rate.dtype == np.float64
    assert stacked.batch_size.dtype == np.int32
