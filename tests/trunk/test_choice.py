"""The decision to cache what is frozen, and runs with and without a cache."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune import from_functions
from finetune.config import Config, TrunkConfig
from finetune.errors import UserError
from finetune.member.params import abstract
from finetune.study import plan, preparation, run
from finetune.trials.grid import Trial
from finetune.trunk.choice import Room, choose_trunk
from finetune.trunk.feature_pass import Pass
from finetune.trunk.feature_store import FeatureStore
from tests.helpers import cuts
from tests.helpers.tasks import base_leaves, data, make_recipe, mlp, row

PLENTY = 10**12
NO_STORE = FeatureStore(Path(), 0)


def trunk_of(recipe, split, mode="auto", device=PLENTY, host=0, dtype="float32", trials=2):
    trials = [Trial(row(seed=seed), {}) for seed in range(trials)]
    settings = TrunkConfig(mode=mode, dtype=dtype)
    return choose_trunk(settings, recipe, abstract(recipe.task), [split] * 3, trials, Room(device, host))


def test_wide_frozen_part_is_cached():
    recipe = make_recipe(mlp(width=256), "head", examples=10, micro_batch=2)
    trunk = trunk_of(recipe, data(10))
    assert trunk.mode == "cached"
    assert trunk.bytes == 3 * 10 * 256 * 4  # what enters the head, of three splits
    products = 2 * (6 * 256 + 256 * 256)
    np.testing.assert_allclose(trunk.flops, 3 * 10 * products, rtol=0.05)


@pytest.mark.parametrize(
    ("trainable", "changes", "mode", "reason"),
    [
        ("all", {}, "none", "nothing is frozen"),
        ("head", {"mode": "shared"}, "shared", "so set"),
        ("stem", {}, "shared", "comes after what trains"),
        ("head", {"device": 100}, "shared", "do not fit into"),
        ("head", {"mode": "none"}, "none", "so set"),
        ("head", {"device": 100, "trials": 1}, "none", "one trial"),
    ],
)
def test_what_is_not_cached_says_why(trainable, changes, mode, reason):
    trunk = trunk_of(make_recipe(mlp(width=256), trainable, examples=10, micro_batch=2), data(10), **changes)
    assert trunk.mode == mode
    assert reason in trunk.reason


def test_narrow_frozen_part_is_not_worth_it():
    recipe = make_recipe(mlp(), "head", examples=10, micro_batch=2)
    assert "FLOPs a byte" in trunk_of(recipe, data(10)).reason
    assert trunk_of(recipe, data(10), mode="cached").mode == "cached"


def test_pass_gives_the_features_of_every_example():
    recipe = make_recipe(mlp(), "head", examples=10, micro_batch=2)
    split, base = data(10), base_leaves(mlp())
    trunk = trunk_of(recipe, split, mode="cached")
    features = Pass([trunk], base, [split] * 3, batch_size=4, store=NO_STORE).run(lambda: None)
    hidden = np.tanh(split["x"] @ base["stem/kernel"] + base["stem/bias"])
    hidden = np.tanh(hidden @ base["block_0/kernel"] + base["block_0/bias"])
    for of_split in features:
        (found,) = of_split.values()
        np.testing.assert_allclose(found, hidden, rtol=1e-5, atol=1e-6)


def test_bfloat16_halves_the_bytes_and_rounds_to_8_bits():
    recipe = make_recipe(mlp(width=64), "head", examples=10, micro_batch=2)
    split, base = data(10), base_leaves(mlp(width=64))
    wide, narrow = (trunk_of(recipe, split, mode="cached", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert wide.bytes == 2 * narrow.bytes
    params, keys = {path: base[path] for path in recipe.paths}, jax.random.split(jax.random.key(0), 10)
    outputs = []
    for trunk in (wide, narrow):
        (features, *_) = Pass([trunk], base, [split] * 3, batch_size=4, store=NO_STORE).run(lambda: None)
        outputs.append(trunk.train.tail(params, trunk.train.constants(base), features, 0.0, keys))
    assert outputs[1].dtype == np.float32
    np.testing.assert_allclose(outputs[1], outputs[0], atol=64 * 2**-9)  # 64 products of numbers below 1
    assert not np.array_equal(*outputs)


def config(trainable: str, mode: str, dropout_at: str) -> Config:
    config = Config(trainable=trainable)
    config.model.name, config.model.pretrained = "vit", ""
    config.model.width, config.model.depth, config.model.heads, config.model.mlp_width = 16, 1, 2, 32
    config.model.patch_size, config.model.dropout_at = 4, dropout_at
    config.data.name, config.data.train_examples = "digits", 40
    config.hparams.epochs, config.hparams.dropout = 2, 0.1
    config.trunk.mode, config.execution.devices = mode, 1
    config.execution.mode = "vmap"
    return config


@pytest.mark.parametrize("trainable", ["head", "last:1"])
def test_cached_and_shared_runs_agree(tmp_path, trainable):
    axes = {"learning_rate": [1e-3, 1e-2], "batch_size": [8, 16]}
    tables = [
        run.run(config(trainable, mode, "head"), tmp_path / mode, axes).table().set_index("id").sort_index()
        for mode in ("cached", "shared")
    ]
    assert tables[0].index.equals(tables[1].index)
    for metric in ("train_loss", "val_loss", "test_loss"):
        np.testing.assert_allclose(tables[0][metric], tables[1][metric], rtol=1e-5)


def test_dropout_within_the_frozen_part_is_not_cached(tmp_path):
    found = run.run(config("head", "auto", "all"), tmp_path, {"seed": [0, 1]}, plan_only=True)
    assert found.trials == []
    assert '"trunk": "shared"' in (tmp_path / "plan.json").read_text()


def test_groups_share_one_pass(tmp_path, monkeypatch):
    passes = []
    monkeypatch.setattr(preparation, "Pass", lambda *arguments: passes.append(Pass(*arguments)) or passes[-1])
    found = run.run(config("head", "cached", "head"), tmp_path, {"trainable": ["head", "last:1"]})
    assert len(found.trials) == 2
    (features, *_) = passes[0].imagined()
    # The last block is fed by 4 patches; the tail adds the class token itself. The head is fed by 16 numbers.
    assert sorted(array.shape[1:] for array in features.values()) == [(4, 16), (16,)]


def test_whether_features_are_rounded_depends_on_no_machine():
    recipe, split = make_recipe(mlp(), "head", examples=10, micro_batch=2), data(10)
    assert trunk_of(recipe, split, dtype="bfloat16").mode == "cached"  # as they are not for their worth in float32
    assert trunk_of(recipe, split, dtype="bfloat16", trials=1).mode == "cached"
    with pytest.raises(UserError, match="trunk.dtype is 'bfloat16', and features .* do not fit into .*'float32'"):
        trunk_of(recipe, split, dtype="bfloat16", device=100)


def trunk_without_dropout(task, split):
    trials = [Trial(row(), {"trainable": "head", "optimizer.name": "sgd", "schedule": "constant"})] * 2
    shapes = abstract(task)
    recipe = plan.make_recipe(Config(), task, shapes, trials, examples=len(split["label"]))
    room = Room(device=10**9, host=0)
    return choose_trunk(TrunkConfig(mode="auto"), recipe, shapes, [split] * 3, trials, room)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("model", [cuts.vit, cuts.bert])
def test_models_without_dropout_are_cut_once_for_training_and_evaluation(model):
    module, example = model(dropout_at="all")
    split = {name: np.zeros((40, *one.shape), one.dtype) for name, one in example.items()}
    trunk = trunk_without_dropout(cuts.task_of(module, example), split | {"label": np.zeros(40, np.int32)})
    assert trunk.mode == "cached"
    assert trunk.train is trunk.evaluate


@pytest.mark.parametrize("noisy", [False, True])
def test_what_draws_in_the_frozen_part_is_not_cached(noisy):
    def init(key):
        return {"stem": {"kernel": jnp.ones((6, 256))}, "head": {"kernel": jnp.ones((256, 3))}}

    def apply(params, batch, dropout, keys):
        x = batch["x"]
        if noisy and keys is not None:
            x = x + jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
        x = jnp.tanh(jnp.tanh(x @ params["stem"]["kernel"]) @ jnp.ones((256, 64)))
        return x @ params["head"]["kernel"][:64]

    trunk = trunk_without_dropout(from_functions(init, apply), data(10))
    assert trunk.mode == ("shared" if noisy else "cached")
