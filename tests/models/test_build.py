"""Tests of finetune/models/__init__.py."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune import models
from finetune.config import ModelConfig
from finetune.errors import UserError

TEXT = {"input_ids": jax.ShapeDtypeStruct((7,), jnp.uint16), "length": jax.ShapeDtypeStruct((), jnp.int32)}
IMAGE = {"image": jax.ShapeDtypeStruct((8, 8, 1), jnp.uint8)}
SIZES = {"pretrained": "", "width": 8, "depth": 2, "heads": 2, "mlp_width": 12}


@pytest.mark.parametrize(
    ("options", "example", "message"),
    [
        ({"name": "brt"}, TEXT, "model.name is 'brt', allowed: bert, efficientnet, vit; did you mean 'bert'"),
        ({"name": "bert"}, IMAGE, "model.name is 'bert', allowed for data with image: vit, efficientnet"),
        ({"name": "vit", "patch_size": 2}, TEXT, "allowed for data with input_ids, length: bert"),
        ({"width": 0}, TEXT, "model.width of random weights is 0, allowed: a whole number, 1 or more"),
        ({"name": "vit"}, IMAGE, "model.patch_size of random weights is 0"),
        ({"heads": 3}, TEXT, "model.heads is 3, allowed: divisors of the width, 8"),
    ],
)
def test_configs_that_are_refused(options, example, message):
    with pytest.raises(UserError, match=message):
        models.build(ModelConfig(**{**SIZES, **options}), 3, example)


def test_sizes_come_from_the_checkpoint(bert_tensors, save_bert):
    directory = str(save_bert(bert_tensors))
    found = models.architecture(ModelConfig(pretrained=directory, width=8))
    assert found["mlp_width"] == 12
    assert json.loads(json.dumps(found)) == found
    with pytest.raises(UserError, match=r"model.width is 16, allowed with .*: 8, or 0"):
        models.architecture(ModelConfig(pretrained=directory, width=16))
    with pytest.raises(UserError, match="weights of a 'bert', allowed with model.name='vit'"):
        models.architecture(ModelConfig(name="vit", pretrained=directory))


@pytest.mark.parametrize("value", [-8, "8", 8.0, True])
def test_sizes_of_a_checkpoint_that_are_no_counts(bert_tensors, bert_config, save_bert, value):
    directory = save_bert(bert_tensors, {**bert_config, "hidden_size": value})
    with pytest.raises(UserError, match="model.width of weights of .* is .*, allowed: a whole number, 1 or more"):
        models.architecture(ModelConfig(pretrained=str(directory)))


def test_task():
    task = models.build(ModelConfig(**{**SIZES, "depth": 1}), 3, TEXT)
    init = jax.jit(task.init)
    params, again, other = init(jax.random.key(0)), init(jax.random.key(0)), init(jax.random.key(1))
    np.testing.assert_array_equal(again["head"]["kernel"], params["head"]["kernel"])
    assert (other["head"]["kernel"] != params["head"]["kernel"]).any()
    batch = {"input_ids": jnp.ones((2, 7), jnp.uint16), "length": jnp.array([3, 7]), "label": jnp.array([0, 2])}
    logits = jax.jit(task.apply)(params, batch, 0.0, None)
    assert logits.shape == (2, 3)
    # A new head is near zero, so the loss of any label is near that of a guess.
    np.testing.assert_allclose(task.loss(logits, batch, jnp.float32(0)), math.log(3), atol=0.3)
    certain = jnp.array([[9.0, 0, 0], [9.0, 0, 0]])
    np.testing.assert_array_equal(task.metrics["accuracy"](certain, batch), [1, 0])
    assert (task.stem, task.blocks, task.head) == (("embeddings",), ("block_0",), "head")
