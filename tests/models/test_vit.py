import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune import models
from finetune.config import ModelConfig
from finetune.errors import UserError
from finetune.member.params import abstract, count, unflatten
from finetune.models.vit import Vit
from finetune.models.weights import pretrained

SIZES = {"width": 12, "depth": 2, "heads": 3, "mlp_width": 20, "patch_size": 2}


def example(*shape, dtype=jnp.uint8):
    return {"image": jax.ShapeDtypeStruct(shape, dtype)}


def config(**options):
    return ModelConfig(**{"name": "vit", "pretrained": "", **SIZES, **options})


def apply(module, params, batch, rate=0.0, keys=None, method="__call__"):
    return jax.jit(lambda rate: module.apply({"params": params}, batch, rate, keys, method=method))(rate)


def as_numpy_computes(arrays, image):
    """Normalised output [1 + patches, D] for one image [H, W, C], from AugReg's arrays, in float64, head by head."""

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return normal * arrays[f"{name}/scale"] + arrays[f"{name}/bias"]

    kernel, side = arrays["embedding/kernel"], image.shape[0] // 2
    patches = [
        np.tensordot(image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2], kernel, 3)
        for row in range(side)
        for column in range(side)
    ]
    x = np.concatenate([arrays["cls"][0], np.stack(patches) + arrays["embedding/bias"]])
    x = x + arrays["Transformer/posembed_input/pos_embedding"][0]
    for index in range(2):
        block = f"Transformer/encoderblock_{index}"
        attention, mlp = f"{block}/MultiHeadDotProductAttention_1", f"{block}/MlpBlock_3"
        normal, attended = norm(x, f"{block}/LayerNorm_0"), arrays[f"{attention}/out/bias"].copy()
        for head in range(3):
            query, key, value = (
                normal @ arrays[f"{attention}/{part}/kernel"][:, head] + arrays[f"{attention}/{part}/bias"][head]
                for part in ("query", "key", "value")
            )
            weights = np.exp(query @ key.T / math.sqrt(2))
            weights /= weights.sum(-1, keepdims=True)
            attended = attended + weights @ value @ arrays[f"{attention}/out/kernel"][head]
        x = x + attended
        hidden = norm(x, f"{block}/LayerNorm_2") @ arrays[f"{mlp}/Dense_0/kernel"] + arrays[f"{mlp}/Dense_0/bias"]
        hidden = 0.5 * hidden * (1 + np.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
        x = x + hidden @ arrays[f"{mlp}/Dense_1/kernel"] + arrays[f"{mlp}/Dense_1/bias"]
    return norm(x, "Transformer/encoder_norm")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-12)])
def test_output_is_that_of_the_definition(vit_arrays, tmp_path, dtype, tolerance):
    arrays = {name: array.astype(np.float64) for name, array in vit_arrays.items()}
    np.savez(tmp_path / "vit.npz", **arrays)
    options = ModelConfig(name="vit", pretrained=str(tmp_path / "vit.npz"), dtype=dtype)
    images = np.random.default_rng(2).integers(0, 256, (2, 4, 4, 2), np.uint8)
    with jax.enable_x64(dtype == "float64"):
        expected = abstract(models.build(options, 3, example(4, 4, 2)))
        leaves = pretrained.load(options, expected, "head")
        sizes = models.architecture(options)
        del sizes["model"]
        module = Vit(classes=3, **sizes, dtype=dtype, param_dtype=dtype)
        hidden = apply(module, unflatten(leaves), {"image": jnp.asarray(images)}, method="hidden")
    assert hidden.dtype == dtype
    for row, image in enumerate(images):
        np.testing.assert_allclose(hidden[row], as_numpy_computes(arrays, image / 127.5 - 1), atol=tolerance)


def test_digits(draw_params):
    task = models.build(config(), 10, example(8, 8, 1))
    shapes = abstract(task)
    block = 4 * (12 * 12 + 12) + 2 * 2 * 12 + (12 * 20 + 20) + (20 * 12 + 12)
    embeddings = (2 * 2 * 1 * 12 + 12) + 12 + 4 * 4 * 12
    assert count(shapes) == embeddings + 2 * block + 2 * 12 + (12 * 10 + 10)
    assert {path for path in shapes if not path.startswith("block_")} == {
        "embeddings/patch/kernel",
        "embeddings/patch/bias",
        "embeddings/class_token",
        "embeddings/position",
        "norm/scale",
        "norm/bias",
        "head/kernel",
        "head/bias",
    }
    params = draw_params(task.init)
    image = jnp.asarray(np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8))
    logits = jax.jit(lambda image: task.apply(params, {"image": image}, 0.0, None))(image)
    assert logits.shape == (5, 10)
    assert logits.dtype == jnp.float32
    assert (logits[0] != logits[1]).any()


def test_float_images_are_used_as_they_are(draw_params):
    task = models.build(config(), 10, example(8, 8, 1))
    params = draw_params(task.init)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    run = jax.jit(lambda image: task.apply(params, {"image": image}, 0.0, None))
    np.testing.assert_allclose(run(pixels / np.float32(127.5) - 1), run(pixels), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_bfloat16_stays_near_float32(draw_params, pooling):
    batch = {"image": jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8))}
    sizes = {**SIZES, "epsilon": 1e-6, "classes": 3, "pooling": pooling}
    params = draw_params(Vit(**sizes).init, batch, 0.0, None)["params"]
    exact = apply(Vit(**sizes), params, batch)
    near = apply(Vit(**sizes, dtype=jnp.bfloat16), params, batch)
    assert near.dtype == jnp.float32
    assert 0 < np.linalg.norm(near - exact) < 2e-2 * np.linalg.norm(exact)


@pytest.mark.parametrize(("where", "inside"), [("all", True), ("head", False)])
def test_dropout_acts_where_it_is_asked_to(draw_params, where, inside):
    batch = {"image": jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8))}
    keys = jax.random.split(jax.random.key(0), 2)
    module = Vit(**{**SIZES, "depth": 1}, epsilon=1e-6, classes=3, dropout_at=where)
    params = draw_params(module.init, batch, 0.0, None)["params"]

    @jax.jit
    def run(rate):
        hidden = module.apply({"params": params}, batch, rate, keys, method="hidden")
        return hidden, module.apply({"params": params}, batch, rate, keys)

    changes = [float(jnp.abs(dropped - plain).max()) for dropped, plain in zip(run(0.5), run(0.0), strict=True)]
    assert (changes[0] > 1e-2) == inside
    assert changes[1] > 1e-2


@pytest.mark.parametrize("shape", [(8, 9, 1), (9, 8, 1), (0, 0, 1)])
def test_images_that_do_not_divide_into_patches_are_refused(shape):
    with pytest.raises(UserError, match="allowed: multiples of the patch size 2"):
        models.build(config(), 2, example(*shape))


def test_images_need_not_be_square():
    shapes = abstract(models.build(config(), 2, example(8, 4, 3)))
    assert shapes["embeddings/position"].shape == (4, 2, 12)
