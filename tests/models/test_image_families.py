"""Families of image encoders: what transformers computes, names in both directions, and what trains of each."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import softmax

from finetune import models, predict
from finetune.config import LoraConfig, ModelConfig, TrunkConfig
from finetune.errors import UserError
from finetune.member import lora
from finetune.member.params import abstract, trainable_paths, unflatten
from finetune.member.rates import depth_of
from finetune.models import settled
from finetune.models.weights import exported, pretrained
from finetune.models.weights.families import FAMILIES
from finetune.trials.grid import Trial
from finetune.trunk.choice import Room, choose_trunk
from tests.helpers import families
from tests.helpers.tasks import make_recipe, row

PLAIN = [name for name in families.IMAGES if "_" not in name]  # the others differ in settings alone
CLASSES = ("one", "two", "three")
UNREAD = ("pooler.", "classifier.")  # of an encoder, and of a class


def write(directory, name, tensors=None, place="weights", **settings):
    golden = families.golden(name)
    tensors = families.draw(golden["shapes"]) if tensors is None else tensors
    return families.write(directory / place, golden["config"] | settings, tensors)


def task_of(directory, *shape):
    config = ModelConfig(pretrained=str(directory))
    return config, models.build(config, len(CLASSES), {"image": jax.ShapeDtypeStruct(shape, np.uint8)})


@pytest.fixture(params=PLAIN)
def family(request, tmp_path):
    """A name, what the file holds, its config and its task."""
    golden = families.golden(request.param)
    return request.param, golden, *task_of(write(tmp_path, request.param), *golden["size"], 3)


def test_every_family_has_what_transformers_computed():
    assert {name.replace("-", "_") for name in PLAIN} == {name for name in FAMILIES if FAMILIES[name].images}
    for name, family in FAMILIES.items():
        module = models.MODELS[name].module
        assert getattr(module, "activation", family.usual_activation) == family.usual_activation, name


def computed(config, leaves, image):
    sizes = models.architecture(config)
    sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()}
    module = models.MODELS[sizes.pop("model")].module(classes=1, pooling=settled.pooling(config), **sizes)

    @jax.jit
    def run(params, image):
        apply = lambda method: module.apply({"params": params}, {"image": image}, 0.0, None, method=method)  # noqa: E731
        return apply("hidden"), apply("pooled")

    return [np.asarray(each) for each in run(unflatten(leaves), jnp.asarray(image))]


@pytest.mark.parametrize("name", families.IMAGES)
def test_hidden_states_are_those_of_transformers(tmp_path, name):
    golden = families.golden(name)
    config, task = task_of(write(tmp_path, name), *golden["size"], 3)
    assert models.architecture(config)["model"] == golden["config"]["model_type"]
    leaves = pretrained.load(config, abstract(task), "head")
    hidden, pooled = computed(config, leaves, families.pixels(2, *golden["size"], 3))
    expected = np.array(golden["hidden"])
    np.testing.assert_allclose(hidden, np.moveaxis(expected, 1, 3) if expected.ndim == 4 else expected, 1e-5, 1e-4)
    # The pooler of ViT and DeiT is a head, which is left out.
    expected = np.array(golden["hidden"])[:, 0] if name.startswith(("vit", "deit")) else golden["pooled"]
    np.testing.assert_allclose(pooled, expected, 1e-5, 1e-4)


@pytest.mark.parametrize("name", ["vit", "dinov2", "dinov2-with-registers", "siglip-vision-model"])
def test_positions_are_resized_as_transformers_does(tmp_path, name):
    resized = families.golden(name)["resized"]
    config, task = task_of(write(tmp_path, name), *resized["size"], 3)
    leaves = pretrained.load(config, abstract(task), "head")
    hidden, _ = computed(config, leaves, families.pixels(2, *resized["size"], 3))
    np.testing.assert_allclose(hidden, resized["hidden"], atol=1e-4)


def write_export(directory, config, leaves, pooling, shape=(12, 12, 3)):
    description = {
        "architecture": models.architecture(config),
        "model": {"dtype": "float32", "pooling": pooling},
        "data": {"task": "classification", "label_separator": "|", "max_length": 6, "image_size": 0},
        "classes": list(CLASSES),
        "inputs": {"image": {"shape": list(shape), "dtype": "uint8"}},
    }
    directory.mkdir()
    exported.write(directory, description, leaves, None)
    return load_file(directory / "model.safetensors"), json.loads((directory / "config.json").read_text())


def exported_of(directory, name):
    """Returns golden, config, leaves with a head, tensors and settings of an export in directory / "model"."""
    golden = families.golden(name)
    config, task = task_of(write(directory, name), *golden["size"], 3)
    leaves, shapes = pretrained.load(config, abstract(task), "head"), abstract(task)
    leaves |= families.draw({path: leaf.shape for path, leaf in shapes.items() if path.startswith("head/")})
    pooling = settled.pooling(config)
    return golden, leaves, *write_export(directory / "model", config, leaves, pooling, [*golden["size"], 3])


@pytest.mark.parametrize("name", families.IMAGES)
def test_an_export_holds_what_transformers_reads(tmp_path, name):
    golden, leaves, stored, settings = exported_of(tmp_path, name)
    prefix = ""
    if golden["class"]:
        prefix = FAMILIES[golden["config"]["model_type"]].prefix
        assert settings["architectures"] == [golden["class"]["name"]]
        assert {each: list(array.shape) for each, array in stored.items()} == golden["class"]["shapes"]
        head = next(array for each, array in stored.items() if each.endswith(".weight") and len(array) == 3)
        np.testing.assert_array_equal(head[:, : len(leaves["head/kernel"])], leaves["head/kernel"].T)
        assert not head[:, len(leaves["head/kernel"]) :].any()
    else:
        assert "architectures" not in settings
        assert {each: list(array.shape) for each, array in stored.items()} == golden["shapes"]
    for each, array in families.draw(golden["shapes"]).items():
        if not each.startswith(UNREAD):
            np.testing.assert_array_equal(stored[prefix + each], array, err_msg=each)
    both = (settings.keys() & golden["config"].keys()) - {"architectures", "id2label", "label2id", "dtype"}
    assert {each: settings[each] for each in both} == {each: golden["config"][each] for each in both}
    read = exported.parameters(tmp_path / "model")
    assert read.keys() == leaves.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(read[path], leaf, err_msg=path)


@pytest.mark.parametrize("name", families.IMAGES)
def test_transformers_computes_the_same_with_an_export(tmp_path, name):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    golden, leaves, _, _ = exported_of(tmp_path, name)
    image = families.pixels(3, *golden["size"], 3)
    found = predict.probabilities(predict.load(tmp_path / "model"), {"image": image})
    pixels = torch.tensor((image.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32))
    kind = transformers.AutoModelForImageClassification if golden["class"] else transformers.AutoModel
    model, said = kind.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(said[each] for each in ("missing_keys", "unexpected_keys", "mismatched_keys")), said
    with torch.no_grad():
        outputs = model.eval()(pixel_values=pixels)
    if golden["class"]:
        logits = outputs.logits.numpy()
    else:
        logits = outputs.pooler_output.numpy() @ leaves["head/kernel"] + leaves["head/bias"]
    np.testing.assert_allclose(found, softmax(logits, axis=-1), rtol=1e-4, atol=1e-5)


def test_words_select_what_they_say(family):
    _, golden, _, task = family
    shapes = abstract(task)
    fixed = {path for path in shapes if path.split("/")[-1] in ("mask_token", "mean", "variance")}
    tops = {path.split("/")[0] for path in shapes} - fixed
    after = {"norm", "pooler"} & tops

    def selected(spec):
        return trainable_paths(spec, task, shapes)

    def top(spec):
        return {path.split("/")[0] for path in selected(spec)}

    assert top("head") == {"head"}
    assert top("last:1") == {task.blocks[-1], "head"} | after
    assert top("first:1") == tops - {*task.blocks[1:]} - after
    assert selected("all") == shapes.keys() - fixed
    tensors = [name.rpartition(".") for name in golden["shapes"] if not name.startswith(UNREAD)]
    norms = [leaf for module, _, leaf in tensors if _is_norm(module) and leaf in ("weight", "bias")]
    assert len(selected("norm") - selected("head")) == len(norms)
    # Of a tensor that holds three layers three biases.
    biases = [leaf for _, _, leaf in tensors if leaf.endswith("bias") for _ in range(3 if "in_proj" in leaf else 1)]
    assert len(selected("bias") - selected("head")) == len(biases)
    depths = {path.split("/")[0]: depth_of(path, task) for path in shapes}
    assert depths["head"] == 0
    assert [depths[block] for block in task.blocks] == [*range(len(task.blocks), 0, -1)]
    assert {depths[each] for each in tops - after - {"head", *task.blocks}} == {len(task.blocks) + 1}


def _is_norm(module):
    # The first layer of what halves rows and columns is one.
    return "norm" in module.rpartition(".")[2] or module.endswith("downsampling_layer.0")


def test_adapters_are_at_dense_layers(family):
    _, _, _, task = family
    shapes = abstract(task)
    tops = {path.split("/")[0] for path in shapes}
    places = [block for block in task.blocks if f"{block}/attention/query/kernel" in shapes]
    places += ["pooler"] * ("pooler" in tops)
    if places:
        adapted = lora.adapters(LoraConfig(targets="attention"), "lora", task, shapes, 2).layers
        parts = ("query", "key", "value", "output")
        assert set(adapted) == {f"{place}/attention/{part}" for place in places for part in parts}
    adapted = lora.adapters(LoraConfig(targets="blocks"), "lora", task, shapes, 2).layers
    kernels = {path for path, leaf in shapes.items() if path.startswith("block_") and len(leaf.shape) == 2}
    assert set(adapted) == {path.removesuffix("/kernel") for path in kernels}


@pytest.mark.parametrize("spec", ["head", "last:1"])
def test_what_is_frozen_is_computed_once(family, spec):
    _, golden, _, task = family
    split = {"image": families.pixels(4, *golden["size"], 3), "label": np.zeros(4, np.int32)}
    recipe = make_recipe(task, spec, examples=4, micro_batch=2)
    trials = [Trial(row(seed=seed), {}) for seed in range(2)]
    found = choose_trunk(
        TrunkConfig(mode="cached"), recipe, abstract(task), [split] * 3, trials, Room(10**9, 0), eval_batch=2
    )
    assert found.mode == "cached"


REFUSED = [
    ("convnext", {"layer_scale_init_value": 0}, "layer_scale_init_value is '0', allowed: above 0"),
    ("convnext", {"num_stages": 4}, r"num_stages is '4', allowed: as many as depths are, \[1, 1, 2\]"),
    (
        "convnext",
        {"hidden_sizes": [4, 6]},
        r"model.widths of .* is \[4, 6\], allowed: a number for each stage",
    ),
    ("resnet", {"layer_type": "wide"}, "layer_type is 'wide', allowed: basic, bottleneck"),
    ("resnet", {"depths": [1, 0]}, "model.depths of weights of .* is 0, allowed: a whole number, 1 or more"),
    ("vit", {"qkv_bias": False}, "qkv_bias is False, allowed: True"),
    ("vit", {"hidden_act": "gelu_fast"}, "hidden_act is 'gelu_fast', allowed: 'gelu', "),
    ("vit", {"image_size": [12]}, r"image_size is '\[12\]', allowed: pixels of an edge, or two of them"),
    ("vit", {"patch_size": [4, 4]}, r"model.patch_size of weights of .* is \[4, 4\], allowed: a whole number"),
    ("vit", {"num_channels": 0}, "model.channels of weights of .* is 0, allowed: a whole number, 1 or more"),
    ("deit", {"new_thing": 3}, "new_thing is '3', which is not known here and may change what is computed"),
    ("dinov2", {"mlp_ratio": 2.5}, "mlp_ratio is '2.5', allowed: a whole number"),
    ("siglip-vision-model", {"vision_use_head": False}, "vision_use_head is False, allowed: True"),
    ("clip-vision-model", {"model_type": "clip", "vision_config": 3}, "vision_config is '3', allowed: the config.json"),
]


@pytest.mark.parametrize("name, change, message", REFUSED)
def test_settings_that_are_refused_by_name(tmp_path, name, change, message):
    directory = write(tmp_path, name, {}, **change)
    with pytest.raises(UserError, match=message) as caught:
        models.architecture(ModelConfig(pretrained=str(directory)))
    assert "\n" not in str(caught.value)


def test_what_images_and_pooling_a_model_takes(tmp_path):
    directory = write(tmp_path, "clip-vision-model")
    task_of(directory, 12, 12, 1)  # grey is RGB of equal parts
    with pytest.raises(UserError, match=r"images have 2 channels, allowed by the model: 3, or 1 \(grey\)"):
        task_of(directory, 12, 12, 2)
    with pytest.raises(UserError, match="13 x 12 pixels, allowed: multiples of the patch size 4"):
        task_of(directory, 13, 12, 3)
    config = ModelConfig(pretrained=str(directory), pooling="mean")
    with pytest.raises(
        UserError, match="weights of a 'clip_vision_model', allowed with model.name='bert' for data with x"
    ):
        models.build(ModelConfig(pretrained=str(directory)), 2, {"x": jax.ShapeDtypeStruct((3,), np.float32)})
    with pytest.raises(UserError, match="images are 5 x 12 pixels, allowed by the model: 8 or more"):
        task_of(write(tmp_path, "resnet", place="resnet"), 5, 12, 3)
    with pytest.raises(UserError, match="model.pooling is 'mean', allowed for a 'clip_vision_model': first"):
        models.build(config, 3, {"image": jax.ShapeDtypeStruct((12, 12, 3), np.uint8)})


@pytest.mark.parametrize("name", ["clip-vision-model", "siglip-vision-model"])
def test_a_tower_beside_that_of_texts(tmp_path, name):
    golden = families.golden(name)
    tower = {each: value for each, value in golden["config"].items() if each != "transformers_version"}
    both = {"model_type": name.split("-")[0], "text_config": {"hidden_size": 99}, "vision_config": tower}
    tensors = {f"vision_model.{each}": array for each, array in families.draw(golden["shapes"]).items()}
    others = ("text_model.encoder.layers.0.layer_norm1.weight", "visual_projection.weight", "logit_scale")
    tensors |= {each: np.ones(3, np.float32) for each in others}
    tensors["vision_model.embeddings.position_ids"] = np.arange(10)
    config, task = task_of(families.write(tmp_path / "both", both, tensors), 12, 12, 3)
    leaves = pretrained.load(config, abstract(task), "head")
    hidden, pooled = computed(config, leaves, families.pixels(2, 12, 12, 3))
    np.testing.assert_allclose(hidden, golden["hidden"], atol=1e-4)
    np.testing.assert_allclose(pooled, golden["pooled"], atol=1e-4)
