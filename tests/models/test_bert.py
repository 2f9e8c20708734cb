import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune import assets, models
from finetune.config import ModelConfig
from finetune.errors import UserError
from finetune.member.params import abstract, count, unflatten
from finetune.models.bert import Bert
from finetune.models.weights import pretrained

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "minilm.json").read_text())
TINY = {"width": 16, "depth": 1, "heads": 4, "mlp_width": 24, "vocabulary": 30, "positions": 12, "token_types": 2}
TINY |= {"epsilon": 1e-12}


def example(tokens):
    return {"input_ids": jax.ShapeDtypeStruct((tokens,), jnp.uint16), "length": jax.ShapeDtypeStruct((), jnp.int32)}


def batch_of(texts, tokens):
    ids = np.zeros((len(texts), tokens), np.uint16)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
    return {"input_ids": jnp.asarray(ids), "length": jnp.array([len(text) for text in texts], jnp.int32)}


@pytest.fixture
def tiny(draw_params):
    """Returns a function of options: (module, params) of a tiny classifier."""

    def make(**options):
        init = Bert(classes=3, **TINY).init
        return Bert(classes=3, **TINY, **options), draw_params(init, batch_of([[1]], 2), 0.0, None)["params"]

    return make


def apply(module, params, batch, rate=0.0, keys=None, method="__call__"):
    return jax.jit(lambda rate: module.apply({"params": params}, batch, rate, keys, method=method))(rate)


def as_numpy_computes(tensors, text, heads, epsilon):
    """Hidden states [T, D] of one text, from the definition of BERT, in float64 and one head at a time."""

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        return normal * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def dense(x, name):
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    x = (
        tensors["embeddings.word_embeddings.weight"][text]
        + tensors["embeddings.position_embeddings.weight"][: len(text)]
    )
    x = norm(x + tensors["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for index in range(2):
        layer = f"encoder.layer.{index}"
        query, key, value = (dense(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value"))
        mixed = []
        for part in np.split(np.arange(x.shape[1]), heads):
            weights = np.exp(query[:, part] @ key[:, part].T / math.sqrt(len(part)))
            mixed.append(weights / weights.sum(-1, keepdims=True) @ value[:, part])
        attended = dense(np.concatenate(mixed, -1), f"{layer}.attention.output.dense")
        x = norm(x + attended, f"{layer}.attention.output.LayerNorm")
        hidden = dense(x, f"{layer}.intermediate.dense")
        hidden = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        x = norm(x + dense(hidden, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_hidden_states_are_those_of_the_definition(bert_tensors, save_bert, dtype, tolerance):
    config = ModelConfig(pretrained=str(save_bert(bert_tensors)), dtype=dtype)
    texts = [[3, 1, 4, 1, 5], [9, 2]]
    with jax.enable_x64(dtype == "float64"):
        expected = abstract(models.build(config, 3, example(7)))
        leaves = pretrained.load(config, expected, "head")
        sizes = models.architecture(config)
        del sizes["model"]
        module = Bert(classes=3, **sizes, dtype=dtype, param_dtype=dtype)
        hidden = apply(module, unflatten(leaves), batch_of(texts, 7), method="hidden")
    assert hidden.dtype == dtype
    tensors = {name: tensor.astype(np.float64) for name, tensor in bert_tensors.items()}
    for row, text in enumerate(texts):
        reference = as_numpy_computes(tensors, text, heads=2, epsilon=1e-5)
        np.testing.assert_allclose(hidden[row, : len(text)], reference, atol=tolerance)


def test_parameters_of_minilm_by_name_and_number():
    config = ModelConfig(pretrained="", width=384, depth=6, heads=12, mlp_width=1536)
    task = models.build(config, 8, example(128))
    shapes = abstract(task)
    width, hidden = 384, 1536
    embeddings = (30522 + 512 + 2) * width + 2 * width
    block = 4 * (width**2 + width) + 2 * width + (width * hidden + hidden) + (hidden * width + width) + 2 * width
    assert count(shapes) == embeddings + 6 * block + 8 * width + 8
    # The checkpoint's 22,713,216 parameters are those of BertModel, whose pooler is a dense layer on top.
    assert embeddings + 6 * block == 22_713_216 - (width**2 + width)
    in_block = [
        f"attention/{part}/{leaf}" for part in ("query", "key", "value", "output") for leaf in ("kernel", "bias")
    ]
    in_block += [f"mlp/{part}/{leaf}" for part in ("up", "down") for leaf in ("kernel", "bias")]
    in_block += [f"{norm}/{leaf}" for norm in ("attention_norm", "mlp_norm") for leaf in ("scale", "bias")]
    names = {f"block_{index}/{name}" for index in range(6) for name in in_block} | {"head/kernel", "head/bias"}
    names |= {f"embeddings/{table}/embedding" for table in ("word", "position", "token_type")}
    assert set(shapes) == names | {"embeddings/norm/scale", "embeddings/norm/bias"}
    assert {leaf.dtype for leaf in shapes.values()} == {jnp.dtype("float32")}
    assert shapes["block_0/attention/query/kernel"].shape == (384, 384)
    assert (task.stem, task.blocks[0], task.blocks[-1], task.head) == (("embeddings",), "block_0", "block_5", "head")


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_padding_changes_nothing(tiny, pooling):
    module, params = tiny(pooling=pooling)
    texts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    short = apply(module, params, batch_of(texts, 5))
    long = batch_of(texts, 12)
    long["input_ids"] = jnp.where(long["input_ids"] == 0, 29, long["input_ids"])
    np.testing.assert_allclose(apply(module, params, long), short, atol=1e-5)
    assert np.abs(short[0] - short[1]).max() > 1e-2


def test_bfloat16_stays_near_float32(tiny):
    module, params = tiny()
    batch = batch_of([[5, 6, 7], [8, 9, 10, 11, 12]], 6)
    exact = apply(module, params, batch, method="hidden")
    near = apply(tiny(dtype=jnp.bfloat16)[0], params, batch, method="hidden")
    assert near.dtype == jnp.bfloat16
    assert 0 < np.linalg.norm(near - exact) < 2e-2 * np.linalg.norm(exact)
    assert apply(tiny(dtype=jnp.bfloat16)[0], params, batch).dtype == jnp.float32


@pytest.mark.parametrize(("where", "inside"), [("all", True), ("head", False)])
def test_dropout_acts_where_it_is_asked_to(tiny, where, inside):
    module, params = tiny(dropout_at=where)
    batch, keys = batch_of([[5, 6, 7], [8, 9]], 4), jax.random.split(jax.random.key(3), 2)

    @jax.jit
    def run(rate, keys):
        hidden = module.apply({"params": params}, batch, rate, keys, method="hidden")
        return hidden, module.apply({"params": params}, batch, rate, keys)

    plain, at_zero, dropped = run(0.5, None), run(0.0, keys), run(0.5, keys)
    for without, zero in zip(plain, at_zero, strict=True):
        np.testing.assert_allclose(zero, without, atol=1e-5)
    changes = [float(jnp.abs(with_ - without).max()) for with_, without in zip(dropped, plain, strict=True)]
    assert (changes[0] > 1e-2) == inside
    assert changes[1] > 1e-2


def test_dropout_of_an_example_does_not_depend_on_its_batch(tiny):
    module, params = tiny()
    batch, keys = batch_of([[5, 6, 7], [8, 9], [1, 2]], 4), jax.random.split(jax.random.key(3), 3)
    whole = apply(module, params, batch, 0.5, keys)
    alone = apply(module, params, {name: value[1:2] for name, value in batch.items()}, 0.5, keys[1:2])
    np.testing.assert_allclose(alone, whole[1:2], atol=1e-5)


def test_members_share_frozen_parameters(tiny):
    module, params = tiny()
    batch = batch_of([[5, 6, 7], [8, 9]], 4)
    head = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, 3 * leaf]), params["head"])

    def run(head):
        return module.apply({"params": {**params, "head": head}}, batch, 0.0, None)

    together, alone = jax.jit(jax.vmap(run))(head), jax.jit(run)
    for index in range(3):
        solo = alone(jax.tree.map(lambda leaf, index=index: leaf[index], head))
        np.testing.assert_allclose(together[index], solo, rtol=1e-5, atol=1e-6)


def test_text_longer_than_the_positions_is_refused():
    config = ModelConfig(pretrained="", width=16, depth=1, heads=2, mlp_width=8)
    models.build(config, 2, example(512))
    with pytest.raises(UserError, match=r"513 tokens long, allowed by the model: 512; set data\.max_length"):
        models.build(config, 2, example(513))


@pytest.fixture(scope="module")
def minilm():
    config = ModelConfig(pretrained=str(assets.path("minilm")))
    leaves = pretrained.load(config, abstract(models.build(config, 8, example(128))), "head")
    sizes = models.architecture(config)
    del sizes["model"]
    texts = [each["input_ids"] for each in GOLDEN["examples"]]

    def hidden(dtype):
        module = Bert(classes=8, **sizes, dtype=dtype)
        # Arguments, not constants: the compiler would fold 90 MB of these, and the cache would keep them.
        run = jax.jit(lambda params, batch: module.apply({"params": params}, batch, 0.0, None, method="hidden"))
        states = np.asarray(run(unflatten(leaves), batch_of(texts, 128)), np.float64)
        return [states[row, : len(text)] for row, text in enumerate(texts)]

    return config, hidden


@pytest.mark.assets
def test_hidden_states_of_minilm_are_those_of_pytorch(minilm):
    config, hidden = minilm
    assert pretrained.content_hash(config) == GOLDEN["sha256"]
    for states, golden in zip(hidden(jnp.float32), GOLDEN["examples"], strict=True):
        np.testing.assert_allclose(states[0, :8], golden["cls_first8"], atol=1e-4)
        np.testing.assert_allclose(states.mean(0)[:8], golden["mean_first8"], atol=1e-4)
        assert np.linalg.norm(states.mean(0)) == pytest.approx(golden["mean_l2"], abs=1e-4)
        assert np.abs(states).mean() == pytest.approx(golden["last_hidden_abs_mean"], abs=1e-5)
        assert states.sum() == pytest.approx(golden["last_hidden_sum"], abs=1e-4 * math.sqrt(states.size))


@pytest.mark.assets
def test_minilm_in_bfloat16_stays_within_two_percent(minilm):
    _, hidden = minilm
    for near, exact in zip(hidden(jnp.bfloat16), hidden(jnp.float32), strict=True):
        assert np.linalg.norm(near - exact) < 2e-2 * np.linalg.norm(exact)
