"""Families of text encoders: what transformers computes, names in both directions, and what trains of each."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import erf

from finetune import models
from finetune.config import LoraConfig, ModelConfig, TrunkConfig
from finetune.errors import UserError
from finetune.member import lora
from finetune.member.params import abstract, trainable_paths, unflatten
from finetune.member.rates import depth_of
from finetune.models.weights import exported, pretrained
from finetune.models.weights.families import FAMILIES
from finetune.trials.grid import Trial
from finetune.trunk.choice import Room, choose_trunk
from tests.helpers import families
from tests.helpers.tasks import make_recipe, row

PLAIN = [name for name in families.NAMES if "_" not in name]  # the others differ in settings alone
CLASSES = ("one", "two", "three")


def struct(tokens):
    shapes = {"input_ids": (tokens,), "length": ()}
    return {name: jax.ShapeDtypeStruct(shape, np.int32) for name, shape in shapes.items()}


def task_of(directory, tokens=20, **options):
    config = ModelConfig(pretrained=str(directory), **options)
    return config, models.build(config, len(CLASSES), struct(tokens))


def hidden_of(config, leaves, batch):
    sizes = models.architecture(config)
    module = models.MODELS[sizes.pop("model")].module(classes=1, **sizes)
    run = jax.jit(lambda params: module.apply({"params": params}, batch, 0.0, None, method="hidden"))
    return np.asarray(run(unflatten(leaves)))


@pytest.fixture(params=PLAIN)
def family(request, tmp_path):
    """A name, what the file holds, its tensors, and the directory of its checkpoint."""
    golden = families.golden(request.param)
    tensors = families.draw(golden["shapes"])
    return request.param, golden, tensors, families.write(tmp_path / "weights", golden["config"], tensors)


def test_every_family_has_what_transformers_computed():
    assert set(PLAIN) == {name for name, family in FAMILIES.items() if not family.images}
    assert set(FAMILIES) < set(models.MODELS)


@pytest.mark.parametrize("name", families.NAMES)
def test_hidden_states_are_those_of_transformers_whatever_the_padding(tmp_path, name):
    golden = families.golden(name)
    directory = families.write(tmp_path / "weights", golden["config"], families.draw(golden["shapes"]))
    config, task = task_of(directory)
    assert models.architecture(config)["model"] == golden["config"]["model_type"]
    leaves = pretrained.load(config, abstract(task), "head")
    batch = {each: jnp.asarray(golden[each]) for each in ("input_ids", "length", "token_type_ids") if each in golden}
    found = hidden_of(config, leaves, batch)
    for one, expected in zip(found, golden["hidden"], strict=True):
        np.testing.assert_allclose(one[: len(expected)], expected, atol=1e-4)
    # The shorter text again, padded less and with other tokens.
    length = golden["length"][1]
    short = {each: array[1:] if each == "length" else array[1:, : length + 2] for each, array in batch.items()}
    short["input_ids"] = short["input_ids"].at[:, length:].set(7)
    alone = hidden_of(config, leaves, short)
    np.testing.assert_allclose(alone[0, :length], found[1, :length], atol=1e-5)


def write_export(directory, config, leaves, task="classification", pooling="first"):
    description = {
        "architecture": models.architecture(config),
        "model": {"dtype": "float32", "pooling": pooling},
        "data": {"task": task, "label_separator": "|", "text_column": "text", "max_length": 6, "image_size": 0},
        "classes": list(CLASSES),
    }
    directory.mkdir()
    exported.write(directory, description, leaves, None)
    return load_file(directory / "model.safetensors"), json.loads((directory / "config.json").read_text())


def with_head(config, task):
    head = {"head/kernel": (16, len(CLASSES)), "head/bias": (len(CLASSES),)}
    return pretrained.load(config, abstract(task), "head") | families.draw(head)


@pytest.mark.parametrize("kind", ["SequenceClassification", "TokenClassification"])
def test_an_export_holds_what_a_class_of_transformers_reads(family, tmp_path, kind):
    name, golden, tensors, directory = family
    config, task = task_of(directory)
    leaves = with_head(config, task)
    told = "tokens" if kind.startswith("Token") else "classification"
    stored, settings = write_export(tmp_path / "model", config, leaves, told)
    wanted = golden["classes"][kind]
    prefix = FAMILIES[name].prefix if "architectures" in settings else ""
    if name == "modernbert":  # its classes normalise what a head reads, so that none is ours
        assert stored.pop("classifier.weight").size == 0
        assert not prefix
        assert {*stored} == {*golden["shapes"]}
    else:
        assert settings["architectures"] == [wanted["name"]]
        assert {each: list(array.shape) for each, array in stored.items()} == wanted["shapes"]
    for each, array in tensors.items():
        if not each.startswith("pooler."):
            np.testing.assert_array_equal(stored[prefix + each], array)
    both = settings.keys() & golden["config"].keys()
    ours = {"architectures", "id2label", "label2id", "dtype", "transformers_version", "pos_att_type"}
    assert {each: settings[each] for each in both - ours} == {each: golden["config"][each] for each in both - ours}
    read = exported.parameters(tmp_path / "model")
    assert read.keys() == leaves.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(read[path], leaf)


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "modernbert"])
def test_the_head_behind_an_activation_gives_what_a_head_gives(tmp_path, name):
    golden = families.golden(name)
    config, task = task_of(families.write(tmp_path / "weights", golden["config"], families.draw(golden["shapes"])))
    leaves = with_head(config, task)
    stored, _ = write_export(tmp_path / "model", config, leaves)
    # What the classes of transformers have on the first token.
    inner = {"bert": "bert.pooler.dense", "distilbert": "pre_classifier", "deberta-v2": "pooler.dense"}
    outer = "classifier" if name in inner else "classifier.out_proj"
    functions = {"distilbert": lambda x: np.maximum(x, 0)}
    functions |= dict.fromkeys(("electra", "deberta-v2"), lambda x: x * (1 + erf(x / np.sqrt(2))) / 2)
    dense = inner.get(name, "classifier.dense")
    hidden = np.array(golden["hidden"][0])
    x = functions.get(name, np.tanh)(hidden @ stored[f"{dense}.weight"].T.astype(float) + stored[f"{dense}.bias"])
    logits = x @ stored[f"{outer}.weight"].T.astype(float) + stored[f"{outer}.bias"]
    np.testing.assert_allclose(logits, hidden @ leaves["head/kernel"] + leaves["head/bias"], rtol=1e-5, atol=1e-5)


def test_words_select_what_they_say(family):
    _, golden, tensors, directory = family
    _, task = task_of(directory)
    shapes = abstract(task)
    tops = {path.split("/")[0] for path in shapes}
    after = {"norm"} & tops
    blocks = golden["config"].get("num_hidden_layers", golden["config"].get("n_layers"))

    def selected(spec):
        return trainable_paths(spec, task, shapes)

    def top(spec):
        return {path.split("/")[0] for path in selected(spec)}

    assert top("head") == {"head"}
    assert top("last:1") == {f"block_{blocks - 1}", "head"} | after
    assert top("first:1") == tops - {f"block_{index}" for index in range(1, blocks)} - after
    assert selected("all") == shapes.keys()
    norms = [each for each in tensors if "norm" in each.lower() and not each.startswith("pooler")]
    assert len(selected("norm") - selected("head")) == len(norms)
    biases = [each for each in tensors if each.endswith(".bias") and not each.startswith("pooler")]
    assert len(selected("bias") - selected("head")) == len(biases)
    adapted = lora.adapters(LoraConfig(targets="attention"), "lora", task, shapes, 2).layers
    parts = ("query", "key", "value", "output")
    assert set(adapted) == {f"block_{index}/attention/{part}" for index in range(blocks) for part in parts}
    depths = {path.split("/")[0]: depth_of(path, task) for path in shapes}
    assert depths["head"] == 0
    assert [depths[f"block_{index}"] for index in range(blocks)] == [*range(blocks, 0, -1)]
    assert {depths[each] for each in tops - after - {"head"} if not each.startswith("block_")} == {blocks + 1}


@pytest.mark.parametrize("examples", [1, 2, 11])  # 11: as many as there are distances between 6 positions
def test_adapters_of_deberta_drop_no_distances(tmp_path, examples):
    golden = families.golden("deberta-v2")
    _, task = task_of(families.write(tmp_path / "weights", golden["config"], families.draw(golden["shapes"])), 6)
    shapes = abstract(task)
    made = lora.adapters(LoraConfig(targets="block_*/attention/key"), "lora", task, shapes, 2)
    leaves = families.draw({path: leaf.shape for path, leaf in {**shapes, **made.shapes}.items()})
    ids = jnp.asarray(np.random.default_rng(0).integers(3, 40, (11, 6)))
    keys = jax.random.split(jax.random.key(0), 11)
    run = jax.jit(lambda rows, keys: lora.adapted(task, made).apply(unflatten(leaves), rows, 0.5, keys))

    def rows(count):
        return {"input_ids": ids[:count], "length": jnp.full(count, 6)}, keys[:count]

    few = min(examples, 3)
    np.testing.assert_allclose(run(*rows(examples))[:few], run(*rows(3))[:few], atol=1e-5)


@pytest.mark.parametrize("spec", ["head", "last:1"])
def test_what_is_frozen_is_computed_once(family, spec):
    _, _, _, directory = family
    _, task = task_of(directory, tokens=6)
    split = {"input_ids": np.ones((4, 6), np.int32), "length": np.full(4, 5, np.int32), "label": np.zeros(4, np.int32)}
    recipe = make_recipe(task, spec, examples=4, micro_batch=2)
    trials = [Trial(row(seed=seed), {}) for seed in range(2)]
    trunk = choose_trunk(
        TrunkConfig(mode="cached"), recipe, abstract(task), [split] * 3, trials, Room(10**9, 0), eval_batch=2
    )
    assert trunk.mode == "cached"
    width = 16 * 4  # bytes
    least = width if spec == "head" else 6 * width
    assert 12 * least <= trunk.bytes < 12 * 3 * least  # examples of three splits


REFUSED = [
    ("roberta", {"add_cross_attention": True}, "add_cross_attention is 'True', which is not known"),
    ("distilbert", {"activation": "tanh"}, "activation is 'tanh', allowed: 'gelu', 'gelu_new', 'relu', 'silu'"),
    ("electra", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
    ("electra", {"embedding_size": None}, "embedding_size missing"),
    ("mpnet", {"relative_attention_num_buckets": 16}, "relative_attention_num_buckets is 16, allowed: 32"),
    ("modernbert", {"norm_bias": True}, "norm_bias is True, allowed: False"),
    ("modernbert", {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]}, "layer_types is .*every n-th of"),
    ("modernbert", {"layer_types": 7}, "layer_types is 7"),
    ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_parameters is .*'default'"),
    ("deberta-v2", {"conv_kernel_size": 3}, "conv_kernel_size is '3', which is not known"),
    ("deberta-v2", {"share_att_key": False}, "share_att_key is False, allowed: True"),
    ("deberta-v2", {"pos_att_type": ["c2p"]}, r"pos_att_type is \['c2p'\]"),
    ("deberta-v2", {"relative_attention": None}, "relative_attention is None, allowed: True"),
    ("deberta-v2", {"position_buckets": -1}, "model.buckets of weights .* is -1, allowed: a whole number"),
    ("roberta", {"pad_token_id": -3}, "model.padding of weights .* is -3, allowed"),
]


@pytest.mark.parametrize("name, change, message", REFUSED)
def test_settings_that_are_refused_by_name(tmp_path, name, change, message):
    settings = families.golden(name)["config"] | change
    settings = {each: value for each, value in settings.items() if each not in change or value is not None}
    with pytest.raises(UserError, match=message) as caught:
        models.architecture(ModelConfig(pretrained=str(families.write(tmp_path / "weights", settings, {}))))
    assert "\n" not in str(caught.value)


def test_settings_of_modernbert_as_transformers_4_wrote_them(tmp_path):
    settings = families.golden("modernbert")["config"]
    new = models.architecture(ModelConfig(pretrained=str(families.write(tmp_path / "new", settings, {}))))
    older = {each: value for each, value in settings.items() if each not in ("layer_types", "rope_parameters")}
    older |= {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    older |= {"position_embedding_type": "absolute", "layer_norm_eps": 1e-5, "reference_compile": True}
    assert models.architecture(ModelConfig(pretrained=str(families.write(tmp_path / "older", older, {})))) == new


def test_a_family_is_named_by_its_weights_alone(tmp_path):
    golden = families.golden("roberta")
    directory = families.write(tmp_path / "weights", golden["config"], families.draw(golden["shapes"]))
    assert models.architecture(ModelConfig(name="roberta", pretrained=str(directory)))["model"] == "roberta"
    with pytest.raises(UserError, match="weights of a 'roberta', allowed with model.name='mpnet'"):
        models.architecture(ModelConfig(name="mpnet", pretrained=str(directory)))
    with pytest.raises(UserError, match="model.name is 'roberta' without weights, allowed: that with model.pretrained"):
        models.architecture(ModelConfig(name="roberta", pretrained=""))
    # 24 rows of positions, of which two stand before the first.
    models.build(ModelConfig(pretrained=str(directory)), 2, struct(22))
    with pytest.raises(UserError, match=r"23 tokens long, allowed by the model: 22; set data\.max_length"):
        models.build(ModelConfig(pretrained=str(directory)), 2, struct(23))


def test_prefixes_heads_and_half_precision_come_as_they_are(tmp_path):
    golden = families.golden("deberta-v2")
    stored = {f"deberta.{name}": each for name, each in families.draw(golden["shapes"]).items()}
    stored = {name: each.astype(ml_dtypes.bfloat16) for name, each in stored.items()}
    heads = ("lm_predictions.lm_head.bias", "mask_predictions.dense.weight", "classifier.weight", "pooler.dense.bias")
    more = {name: np.ones(3, np.float32) for name in heads}
    config, task = task_of(families.write(tmp_path / "weights", golden["config"], stored | more))
    leaves = pretrained.load(config, abstract(task), "head")
    for path in ("block_1/attention/query/kernel", "relative/embedding"):
        name, _ = FAMILIES["deberta-v2"].place(path)
        expected = stored[f"deberta.{name}"].astype(np.float32)
        np.testing.assert_array_equal(leaves[path], expected.T if path.endswith("kernel") else expected)
