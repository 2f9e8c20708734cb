"""What a study is of: every setting that changes a result is in its description or in a trial, and no other."""

import csv

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from finetune import config as settings
from finetune.config import OF_NO_RESULT, Config, ModelConfig
from finetune.errors import UserError
from finetune.study import problem, user_task
from finetune.trials.grid import make_trials
from tests.helpers import families, pairs, tasks
from tests.helpers.exports import text_config, write_tokenizer
from tests.own.networks import linen_task, nnx_task
from tests.study.test_user_task import layered, plain

SIZES = {"width": 8, "depth": 1, "heads": 2, "mlp_width": 8}
TEXTS = [("good film", "plot"), ("bad plot", "film"), ("film film good", "bad good"), ("plot bad film", "bad")]

WIDE = {"model.name": "vit", "data.name": "wide.npz", "data.image_size": 4, "model.patch_size": 2}
RESNET = {"model.pretrained": "resnet", "data.name": "images.npz", **{f"model.{name}": 0 for name in SIZES}}

# For every setting another value; where it needs others to be seen, these after it.
CHANGES = {
    "model.name": ("vit", {"data.name": "images.npz", "model.patch_size": 4}),
    "model.pretrained": ("weights", dict.fromkeys([f"model.{name}" for name in SIZES], 0)),
    "model.dtype": ("bfloat16", {}),
    "model.dropout_at": ("head", {}),
    "model.pooling": ("first", {}),
    "model.batch_norm": ("live", RESNET),
    "model.width": (16, {}),
    "model.depth": (2, {}),
    "model.heads": (4, {}),
    "model.mlp_width": (16, {}),
    "model.patch_size": (2, {"model.name": "vit", "data.name": "images.npz"}),
    "data.name": ("more.csv", {}),
    "data.task": ("multilabel", {}),
    "data.text_column": ("second", {}),
    "data.text_columns": (("first", "second"), {"data.tokenizer": "pairs/tokenizer.json"}),
    "data.label_column": ("kind", {}),
    "data.label_separator": ("a", {"data.task": "multilabel"}),
    "data.tokenizer": ("other.json", {}),
    "data.max_length": (2, {}),
    "data.image_size": (4, {"model.name": "vit", "data.name": "images.npz", "model.patch_size": 2}),
    "data.image_resampling": ("nearest", WIDE),
    "data.image_crop": (0.5, WIDE),
    "data.image_aspect": ("kept", WIDE),
    "data.train_examples": (20, {}),
    "data.validation_examples": (5, {}),
    "data.split_seed": (1, {}),
    "data.classes": (("yes", "maybe"), {}),
    "hparams.learning_rate": (0.5, {}),
    "hparams.warmup_fraction": (0.5, {}),
    "hparams.weight_decay": (0.5, {}),
    "hparams.l2": (0.5, {}),
    "hparams.l1": (0.5, {}),
    "hparams.l2_sp": (0.5, {}),
    "hparams.dropout": (0.5, {}),
    "hparams.label_smoothing": (0.5, {}),
    "hparams.focal_gamma": (0.5, {}),
    "hparams.temperature": (0.5, {}),
    "hparams.clip_norm": (0.5, {}),
    "hparams.layer_decay": (0.5, {}),
    "hparams.momentum": (0.5, {}),
    "hparams.beta1": (0.5, {}),
    "hparams.beta2": (0.5, {}),
    "hparams.lora_rank": (2, {}),
    "hparams.lora_alpha": (0.5, {}),
    "hparams.lora_ratio": (0.5, {}),
    "hparams.batch_size": (4, {}),
    "hparams.epochs": (4, {}),
    "hparams.seed": (4, {}),
    "hparams.data_seed": (4, {}),
    "lora.targets": ("attention", {}),
    "lora.scaling": ("alpha/sqrt(rank)", {}),
    "loss.class_weights": (("balanced",), {}),
    "optimizer.name": ("sgd", {}),
    "optimizer.schedule": ("linear", {}),
    "optimizer.decay_coupling": ("independent", {}),
    "optimizer.epsilon": (1e-6, {}),
    "optimizer.decayed": ("all", {}),
    "optimizer.multipliers": (("head=2",), {}),
    "evaluation.metric": ("loss", {}),
    "evaluation.metrics": (("macro_f1",), {}),
    "evaluation.batch_norm_batches": (3, {}),
    "trunk.dtype": ("bfloat16", {}),
    "trainable": ("all", {}),
    "parts": (("a=head",), {}),
}
SIZED = {"data.image_size": 8, "model.patch_size": 4}  # what these are before: their defaults do not do
OTHERS = {
    "checkpoint.interval_seconds": 1.0, "checkpoint.keep": 1, "checkpoint.trials": ("x",),
    "evaluation.batch_size": 7, "evaluation.worth": 0.5, "execution.chunk": 2, "execution.devices": 1,
    "execution.epochs_on_device": "step", "execution.mode": "loop", "trunk.mode": "shared", "trunk.store": "store",
    "trunk.store_gigabytes": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Files that settings may name."""
    directory = tmp_path_factory.mktemp("subject")
    (directory / "weights").mkdir()
    text_config(directory / "weights")
    tokenizer = Tokenizer.from_file(str(write_tokenizer(directory)))
    words = ("[PAD]", "[UNK]", "plot", "bad", "good", "film")
    tokenizer.model = WordLevel({word: place for place, word in enumerate(words)}, "[UNK]")
    tokenizer.save(str(directory / "other.json"))
    (directory / "pairs").mkdir()
    pairs.write_tokenizer(directory / "pairs")
    for name, count in (("texts", 40), ("more", 44)):
        with (directory / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["first", "second", "label", "kind"])
            for place in range(count):
                writer.writerow([*TEXTS[place % 4], ("yes", "no", "maybe")[place % 3], ("a", "b")[place % 2]])
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    resnet = families.golden("resnet")
    families.write(directory / "resnet", resnet["config"], families.draw(resnet["shapes"]))
    np.savez(directory / "images.npz", x_train=images, y_train=np.arange(40) % 2)
    np.savez(directory / "wide.npz", x_train=images[:, :6], y_train=np.arange(40) % 2)
    return directory


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """No weights are drawn: a description is of those that are given."""
    monkeypatch.setattr(problem, "_drawn", lambda task, paths: dict.fromkeys(paths, np.zeros(())))


def made(directory, changes):
    """Returns the config of texts, with settings changed by name; paths are below `directory`."""
    config = Config(model=ModelConfig(name="bert", pretrained="", **SIZES))
    plain = {"data.name": "texts.csv", "data.tokenizer": "tokenizer.json", "data.text_column": "first"}
    for name, value in (plain | changes).items():
        *sections, leaf = name.split(".")
        is_path = name in ("data.name", "data.tokenizer", "model.pretrained") and value
        section = getattr(config, sections[0]) if sections else config
        setattr(section, leaf, str(directory / value) if is_path else value)
    return settings.checked(config)


def told(directory, changes):
    """Returns (description, ids of trials without it)."""
    config = made(directory, changes)
    return problem.load(config).description, [trial.id("") for trial in make_trials(config, {})]


def test_every_setting_is_of_a_result_or_said_to_be_of_none():
    every = {name for name, _ in settings.fields(Config())}
    assert set(OTHERS) == set(OF_NO_RESULT)
    assert every == CHANGES.keys() | OTHERS.keys()
    assert not CHANGES.keys() & OTHERS.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_that_changes_a_result_changes_what_trials_are_called(directory, name):
    value, besides = CHANGES[name]
    others = {} if name in ("model.name", "model.pretrained") else besides
    if name in SIZED:
        others = besides | {name: SIZED[name]}
    one, other = told(directory, others), told(directory, besides | {name: value})
    assert (one[0] != other[0]) != (one[1] != other[1])  # the description or the trial


def test_a_setting_of_no_result_changes_nothing(directory):
    assert told(directory, OTHERS) == told(directory, {})


def test_arithmetic_counts(directory):
    single = told(directory, {})[0]
    with jax.enable_x64(True):
        double = told(directory, {})[0]
    assert {name for name in single if single[name] != double[name]} == {"jax_enable_x64"}


def test_features_of_few_digits_are_asked_for_where_they_are_kept(directory):
    with pytest.raises(UserError, match="trunk.dtype is 'bfloat16' and trunk.mode 'shared', which caches nothing"):
        made(directory, {"trunk.dtype": "bfloat16", "trunk.mode": "shared"})


def test_the_batch_of_an_evaluation_counts_where_examples_influence_each_other(directory):
    split = tasks.data(8)
    mixing = layered(lambda x: x - x.mean(axis=0, keepdims=True))
    in_the_loss = plain()._replace(loss=lambda outputs, batch, smoothing: outputs[:, 0] - outputs.mean())
    found = [
        user_task.evaluation_mixes(task, split) for task in (plain(), linen_task(), nnx_task(), mixing, in_the_loss)
    ]
    assert found == [False, False, False, True, True]
    features = {"x_train": tasks.data(40)["x"].astype(np.float32), "y_train": np.arange(40) % 3}
    np.savez(directory / "features.npz", **features)

    def described(mixes, size):
        config = settings.checked(Config())
        config.data.name, config.evaluation.batch_size = str(directory / "features.npz"), size
        task = plain()

        def apply(params, batch, dropout, keys):
            x = batch["features"]
            return task.apply(params, {"x": x - x.mean(axis=0, keepdims=True) if mixes else x}, dropout, keys)

        return problem.load(user_task.checked(config), task._replace(apply=apply)).description

    assert described(False, 4) == described(False, 8)
    assert described(True, 4) != described(True, 8)
