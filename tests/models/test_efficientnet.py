import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from finetune import assets, models
from finetune.config import ModelConfig
from finetune.errors import UserError
from finetune.member.params import abstract, count, trainable_paths, unflatten
from finetune.models import efficientnet
from finetune.models.weights import efficientnet_pytorch, pretrained

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "efficientnet_lite0.json").read_text())
LITE0 = ModelConfig(name="efficientnet", pretrained="efficientnet_lite0")
NORM = ("bias", "mean", "scale", "variance")


def example(*shape, dtype=jnp.uint8):
    return {"image": jax.ShapeDtypeStruct(shape, dtype)}


def small(depth=3, classes=3, shape=(32, 32, 3), **options):
    config = ModelConfig(name="efficientnet", pretrained="", width=8, depth=depth, **options)
    return models.build(config, classes, example(*shape))


@pytest.mark.assets
@pytest.mark.parametrize("golden", GOLDEN["examples"], ids=lambda golden: str(golden["size"]))
def test_logits_are_those_of_the_reference(golden):
    size = golden["size"]
    row, column, channel = np.meshgrid(np.arange(size), np.arange(size), np.arange(3), indexing="ij")
    image = 0.5 * np.sin(0.07 * row + 0.11 * column * (channel + 1))
    image += 0.5 * np.cos(0.013 * row * (channel + 1) - 0.05 * column)
    task = models.build(LITE0, 1000, example(size, size, 3, dtype=jnp.float32))
    (file,) = assets.path("efficientnet_lite0").iterdir()
    assert assets.sha256(file) == GOLDEN["sha256"]
    shapes, leaves = abstract(task), efficientnet_pytorch.parameters(file)
    assert {path: leaf.shape for path, leaf in leaves.items()} == {path: leaf.shape for path, leaf in shapes.items()}
    run = jax.jit(lambda params, image: task.apply(params, {"image": image}, 0.0, None))
    logits = np.asarray(run(unflatten(leaves), image[None].astype(np.float32)))[0]
    np.testing.assert_allclose(logits[:16], golden["logits_first16"], atol=1e-3)
    assert np.argsort(-logits)[:5].tolist() == golden["top5"]
    assert abs(logits).mean() == pytest.approx(golden["logit_abs_mean"], abs=1e-4)
    # The classifier of ImageNet is not taken over: the head is new.
    loaded = pretrained.load(LITE0, shapes, task.head)
    assert loaded.keys() == shapes.keys() - {"head/kernel", "head/bias"}
    assert all((loaded[path] == leaves[path]).all() for path in loaded)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("edge", "rows", "columns"), [(3, 8, 7), (5, 9, 6), (5, 2, 1)])
def test_convolutions_are_those_of_xla(float64, edge, rows, columns, stride):
    random = np.random.default_rng(0)
    x, types = random.normal(size=(2, rows, columns, 3)), {"dtype": np.float64, "param_dtype": np.float64}
    for module, shape, groups in (
        (efficientnet.Conv(5, edge, stride, **types), (edge, edge, 3, 5), 1),
        (efficientnet.DepthwiseConv(edge, stride, **types), (edge, edge, 3), 3),
    ):
        kernel = random.normal(size=shape)
        expected = lax.conv_general_dilated(
            x, kernel.reshape(edge, edge, 3 // groups, -1), (stride, stride), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip
        found = jax.jit(module.apply)({"params": {"kernel": kernel}}, x)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_batch_norm_uses_the_averages_of_the_weights(float64):
    random = np.random.default_rng(0)
    leaves = {name: random.uniform(1, 2, 3) for name in NORM}
    x = random.normal(5, 3, (4, 2, 2, 3))
    found = efficientnet.FrozenBatchNorm(1e-3, np.float64).apply({"params": leaves}, x)
    expected = (x - leaves["mean"]) / np.sqrt(leaves["variance"] + 1e-3) * leaves["scale"] + leaves["bias"]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_leaves_and_what_trains():
    task = small()
    shapes = abstract(task)
    layers = [f"block_{block}/{name}" for block in range(3) for name in ("expand", "depthwise", "project")]
    layers.remove("block_0/expand")
    kernels = {"stem/conv", "features/conv", *layers}
    norms = {"stem/norm", "features/norm", *(f"{layer}_norm" for layer in layers)}
    head = {"head/kernel", "head/bias"}
    expected = {f"{path}/kernel" for path in kernels} | {f"{path}/{leaf}" for path in norms for leaf in NORM} | head
    assert shapes.keys() == expected
    # By hand, channels 8 -> 4 -> 6 -> 6 -> 320: kernels, and four numbers a channel of every norm.
    weights = 27 * 8 + (9 * 8 + 8 * 4) + (4 * 24 + 9 * 24 + 24 * 6) + (6 * 36 + 9 * 36 + 36 * 6) + 6 * 320
    assert count(shapes) == weights + 4 * (8 + (8 + 4) + (24 + 24 + 6) + (36 + 36 + 6) + 320) + (320 * 3 + 3)

    averages = {path for path in expected if path.endswith(("/mean", "/variance"))}
    last = {path for path in expected if path.split("/")[0] in ("block_2", "features", "head")}
    norm = {path for path in expected if "norm/" in path}
    for spec, chosen in {"all": expected, "last:1": last, "norm": norm | head, "stem/norm/mean+all": None}.items():
        if chosen is None:
            with pytest.raises(UserError, match="'stem/norm/mean' hits no parameter"):
                trainable_paths(spec, task, shapes)
        else:
            assert trainable_paths(spec, task, shapes) == chosen - averages


def test_grey_images_are_rgb_of_equal_parts_and_floats_are_kept(draw_params):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 33, 40, 1), np.uint8)
    task = small(shape=(33, 40, 1))
    params = jax.tree.map(abs, draw_params(task.init))
    run = jax.jit(lambda image: task.apply(params, {"image": image}, 0.0, None))
    grey = run(pixels)
    np.testing.assert_allclose(run(np.repeat(pixels, 3, axis=3)), grey, rtol=1e-5)
    np.testing.assert_allclose(run((pixels.astype(np.float32) - 127) / 128), grey, rtol=1e-5)
    assert (grey[0] != grey[1]).all()


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({}, (31, 40, 3), "images are 31 x 40 pixels, allowed: 32 or more an edge; set data.image_size"),
        ({}, (32, 32, 4), r"images have 4 channels, allowed for an EfficientNet: 1 \(grey\) or 3 \(RGB\)"),
        ({"width": 6}, (32, 32, 3), "model.width is 6, allowed for an EfficientNet: multiples of 4"),
        ({"depth": 17}, (32, 32, 3), "model.depth is 17, allowed for an EfficientNet: 1 to 16"),
    ],
)
def test_what_cannot_be_built_is_refused(options, shape, message):
    config = ModelConfig(**{"name": "efficientnet", "pretrained": "", "width": 8, "depth": 2} | options)
    with pytest.raises(UserError, match=message):
        models.build(config, 3, example(*shape))
