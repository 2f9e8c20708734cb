"""Batch norms of a ResNet that live: statistics of the batch where they train, and averages that move."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune import models
from finetune.config import ModelConfig
from finetune.errors import UserError
from finetune.member.params import abstract, live_state, trainable_paths, unflatten
from finetune.models.weights import batch_norm, from_study, pretrained
from finetune.storage import checkpoint
from tests.helpers import families

STEM = "embeddings/layer/norm"


@pytest.fixture
def weights(tmp_path):
    golden = families.golden("resnet")
    return families.write(tmp_path / "weights", golden["config"], families.draw(golden["shapes"]))


def task_of(weights, how):
    config = ModelConfig(pretrained=str(weights), batch_norm=how)
    task = models.build(config, 3, {"image": jax.ShapeDtypeStruct((16, 16, 3), np.uint8)})
    leaves = pretrained.load(config, abstract(task), "head")
    return task, leaves | families.draw({"head/kernel": (12, 3), "head/bias": (3,)})


def test_what_live_norms_compute(weights):
    (task, leaves), (frozen, same) = task_of(weights, "live"), task_of(weights, "frozen")
    assert batch_norm.as_leaves(leaves).keys() == same.keys()
    batch, keys = {"image": jnp.asarray(families.pixels(5, 16, 16, 3))}, jax.random.split(jax.random.key(0), 5)
    expected = jax.jit(lambda params: frozen.apply(params, batch, 0.0, None))(unflatten(same))
    np.testing.assert_allclose(task.apply(unflatten(leaves), batch, 0.0, None), expected, rtol=1e-5)
    # What is frozen stays as it is, and so do its averages.
    head = trainable_paths("head", task, leaves)
    assert not live_state(task, leaves, head)
    trained = trainable_paths("all", task, leaves)
    _, moved = jax.jit(lambda params: task.update(params, batch, 0.0, keys, trained))(unflatten(leaves))
    assert set(moved) == {path for path in leaves if path.startswith("batch_stats/")}
    image = np.asarray(batch["image"], np.float32) / 127.5 - 1
    kernel = leaves["embeddings/layer/conv/kernel"]
    layout = ("NHWC", "HWIO", "NHWC")
    filtered = np.asarray(jax.lax.conv_general_dilated(image, kernel, (2, 2), [(3, 3)] * 2, dimension_numbers=layout))
    for name, found in (("mean", filtered.mean((0, 1, 2))), ("var", filtered.var((0, 1, 2)))):
        path = f"batch_stats/{STEM}/{name}"
        np.testing.assert_allclose(moved[path], 0.9 * leaves[path] + 0.1 * found, rtol=1e-3)


def test_what_a_study_with_live_norms_leaves(weights, tmp_path):
    _, leaves = task_of(weights, "live")
    moved = {path: leaf + 1 for path, leaf in leaves.items() if path.startswith("batch_stats/")}
    architecture = models.architecture(ModelConfig(pretrained=str(weights), batch_norm="live"))
    study = tmp_path / "study"
    checkpoint.save(study / "checkpoints" / "base", leaves)
    checkpoint.save(study / "checkpoints" / "trials" / "one" / "best", moved)
    (study / "config.json").write_text(json.dumps({"architecture": architecture}))
    assert from_study.architecture(study) == {name: value for name, value in architecture.items() if name != "is_live"}
    trained = {path: np.asarray(leaf) for path, leaf in from_study.load_trial(study, "one").items()}
    assert trained.keys() == batch_norm.as_leaves(leaves).keys()
    for name, live in (("mean", "mean"), ("variance", "var")):
        np.testing.assert_array_equal(trained[f"{STEM}/{name}"], leaves[f"batch_stats/{STEM}/{live}"] + 1)


def test_live_norms_of_a_model_without_any(tmp_path):
    golden = families.golden("vit")
    directory = families.write(tmp_path / "weights", golden["config"], families.draw(golden["shapes"]))
    for config in (
        ModelConfig(pretrained=str(directory)),
        ModelConfig(name="efficientnet", pretrained="", width=8, depth=1),
    ):
        config.batch_norm = "live"
        with pytest.raises(UserError, match="model.batch_norm is 'live' with a '.*', allowed with: resnet"):
            models.architecture(config)
