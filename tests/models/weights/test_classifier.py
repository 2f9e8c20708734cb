"""Exports as transformers reads them: the head where its classes look for it, or a directory that they refuse."""

import re

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from scipy.special import expit, softmax

from finetune import models, predict
from finetune.config import ModelConfig
from finetune.export import directory as export
from finetune.models.weights import exported
from finetune.models.weights.classifier import _scale
from finetune.study import run as study
from tests.helpers import exports, studies, transformers_forward

TEXTS = {
    "classification": exports.CLASSES,
    "multilabel": ("one", "two", "three"),
    "regression": (),
    "tokens": ("O", "B-x", "I-x"),
}
TOLD = {"classification": softmax, "multilabel": lambda x, axis: expit(x), "regression": lambda x, axis: x}


def write(directory, task, pooling, model="bert"):
    """Writes a model with leaves as drawn, and returns them."""
    classes, directory = TEXTS[task], directory / "model"
    vit = model == "vit"
    if vit:
        sizes = {name: value for name, value in studies.VIT.items() if name not in ("name", "pretrained")}
        architecture, example = {"model": "vit", **sizes, "epsilon": 1e-6}, {"image": ((8, 12, 3), np.uint8)}
    else:
        architecture, sizes = exports.ARCHITECTURE, exports.SIZES
        example = {"input_ids": ((7,), np.uint16), "length": ((), np.int32)}
    shapes = {name: jax.ShapeDtypeStruct(*each) for name, each in example.items()}
    config = ModelConfig(name=model, pretrained="", pooling=pooling, **sizes)
    drawn = exports.drawn(models.build(config, max(len(classes), 1), shapes, per_position=task == "tokens"))
    leaves = drawn if vit else exports.small(drawn)
    data = {"task": task, "label_separator": "|", "text_column": "text", "max_length": 6, "image_size": 0}
    description = {
        "architecture": architecture,
        "model": {"dtype": "float32", "pooling": pooling},
        "data": data,
        "classes": list(classes),
        "inputs": {name: {"shape": list(s), "dtype": np.dtype(d).name} for name, (s, d) in example.items()},
    }
    directory.mkdir()
    exported.write(directory, description, leaves, None if vit else exports.write_tokenizer(directory.parent))
    return leaves


def read(directory, model="bert"):
    """Returns rows, as predict reads them, and its answers for them."""
    loaded = predict.load(directory / "model")
    if model == "vit":
        rows = {"image": np.random.default_rng(1).integers(0, 256, (5, 8, 12, 3)).astype(np.uint8)}
    else:
        (directory / "texts.txt").write_text("\n".join(exports.texts(20)))
        rows = predict.read(directory / "texts.txt", loaded)[1]
    return rows, predict.probabilities(loaded, rows)


def masked(rows):
    ids = rows["input_ids"].astype(np.int64)
    return ids, (np.arange(ids.shape[1])[None] < rows["length"][:, None]).astype(np.int64)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_a_head_on_the_first_token_is_a_sequence_classifier(tmp_path, task):
    write(tmp_path, task, "first")
    rows, found = read(tmp_path)
    logits = transformers_forward.logits(tmp_path / "model", *masked(rows))
    assert found.std(axis=0).min() > 1e-3  # the texts are told apart
    np.testing.assert_allclose(found, TOLD[task](logits, axis=-1), rtol=1e-5, atol=2e-6)
    settings = studies.document(tmp_path / "model", "config.json")
    problems = {"classification": "single_label", "multilabel": "multi_label", "regression": "regression"}
    assert settings["problem_type"].removesuffix("_classification") == problems[task]
    names = TEXTS[task] or ("value",)
    assert settings["id2label"] == {str(i): name for i, name in enumerate(names)}
    assert settings["label2id"] == {name: i for i, name in enumerate(names)}
    assert studies.document(tmp_path / "model", "tokenizer_config.json") == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 6,
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
    }


def test_the_head_comes_through_tanh_to_the_last_bit(tmp_path):
    leaves = write(tmp_path, "classification", "first")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    # What a norm gives at most: one number as far from the mean of the others as 8 numbers allow, root of 7.
    scale, bias = (np.abs(leaves[f"block_1/mlp_norm/{leaf}"]) for leaf in ("scale", "bias"))
    hidden = np.linspace(-1, 1, 1001, dtype=np.float32)[:, None] * (scale * np.float32(7**0.5) + bias).max()
    small = hidden * stored["bert.pooler.dense.weight"][0, 0]
    np.testing.assert_array_equal(np.tanh(small.astype(np.float64)).astype(np.float32), small)
    assert np.log2(_scale(leaves)).is_integer()
    np.testing.assert_array_equal(stored["classifier.weight"] * np.float32(_scale(leaves)), leaves["head/kernel"].T)


def test_a_tagger_is_a_token_classifier(tmp_path):
    write(tmp_path, "tokens", "mean")
    rows, found = read(tmp_path)
    ids, mask = masked(rows)
    logits = transformers_forward.logits(tmp_path / "model", ids, mask)
    np.testing.assert_allclose(found[mask > 0], softmax(logits, axis=-1)[mask > 0], rtol=1e-5, atol=2e-6)
    assert "problem_type" not in studies.document(tmp_path / "model", "config.json")


def test_a_vit_with_its_head_on_the_class_token_is_an_image_classifier(tmp_path):
    write(tmp_path, "classification", "first", "vit")
    rows, found = read(tmp_path, "vit")
    pixels = rows["image"].transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1
    logits = transformers_forward.image_logits(tmp_path / "model", pixels)
    assert found.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(found, softmax(logits, axis=-1), rtol=1e-4, atol=2e-6)
    prepared = studies.document(tmp_path / "model", "preprocessor_config.json")
    assert (prepared["image_mean"], prepared["image_std"], prepared["do_resize"]) == ([0.5] * 3, [0.5] * 3, False)
    assert prepared["size"] == {"height": 8, "width": 12}


@pytest.mark.parametrize("model", ["bert", "vit"])
def test_a_head_on_the_mean_invites_no_class(tmp_path, model):
    write(tmp_path, "classification", "mean", model)
    assert "architectures" not in studies.document(tmp_path / "model", "config.json")
    # A class refuses a tensor of another shape; one that is missing it would draw.
    assert load_file(tmp_path / "model" / "model.safetensors")["classifier.weight"].shape == (0,)
    if model == "bert":
        rows, found = read(tmp_path)
        logits = transformers_forward.mean_logits(tmp_path / "model", *masked(rows))
        assert found.std(axis=0).min() > 1e-3
        np.testing.assert_allclose(found, softmax(logits, axis=-1), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("model", ["bert", "vit"])
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_what_is_written_is_read_again(tmp_path, model, pooling):
    leaves = write(tmp_path, "classification", pooling, model)
    found = exported.parameters(tmp_path / "model")
    assert found.keys() == leaves.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


def theirs(directory, name, **inputs):
    """Returns the logits of a class of transformers."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    loaded, said = getattr(transformers, name).from_pretrained(directory, output_loading_info=True)
    assert not any(said[each] for each in ("missing_keys", "unexpected_keys", "mismatched_keys")), said
    with torch.no_grad():
        return loaded(**{name: torch.tensor(array) for name, array in inputs.items()}).logits.numpy()


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression", "tokens"])
def test_transformers_computes_the_same_of_texts(tmp_path, task):
    transformers = pytest.importorskip("transformers")
    write(tmp_path, task, "first")
    rows, found = read(tmp_path)
    ids, mask = masked(rows)
    kind = "TokenClassification" if task == "tokens" else "SequenceClassification"
    logits = theirs(tmp_path / "model", f"AutoModelFor{kind}", input_ids=ids, attention_mask=mask)
    wanted = TOLD.get(task, softmax)(logits, axis=-1)
    keep = mask > 0 if task == "tokens" else slice(None)
    np.testing.assert_allclose(found[keep], wanted[keep], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        logits[keep], transformers_forward.logits(tmp_path / "model", ids, mask)[keep], rtol=1e-4, atol=1e-5
    )
    names = TEXTS[task] or ("value",)
    if task == "tokens":
        run = transformers.pipeline("token-classification", model=str(tmp_path / "model"), ignore_labels=[])
        for row, text in enumerate(exports.texts(20)):
            for place, each in enumerate(run(text)):
                assert each["entity"] == names[found[row, place].argmax()]
                assert each["score"] == pytest.approx(found[row, place].max(), abs=1e-5)
        return
    run = transformers.pipeline("text-classification", model=str(tmp_path / "model"))
    for each, values in zip(run(exports.texts(20), truncation=True, top_k=None), found, strict=True):
        assert {one["label"]: one["score"] for one in each} == pytest.approx(
            dict(zip(names, map(float, values), strict=True)), rel=1e-4, abs=1e-5
        )


def test_transformers_computes_the_same_of_images(tmp_path):
    transformers = pytest.importorskip("transformers")
    write(tmp_path, "classification", "first", "vit")
    rows, found = read(tmp_path, "vit")
    pixels = (rows["image"].transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)
    logits = theirs(tmp_path / "model", "AutoModelForImageClassification", pixel_values=pixels)
    np.testing.assert_allclose(found, softmax(logits, axis=-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        logits, transformers_forward.image_logits(tmp_path / "model", pixels.astype(float)), rtol=1e-4, atol=1e-5
    )
    run = transformers.pipeline("image-classification", model=str(tmp_path / "model"))
    for image, values in zip(rows["image"], found, strict=True):
        scores = {each["label"]: each["score"] for each in run(Image.fromarray(image))}
        assert scores == pytest.approx(dict(zip(exports.CLASSES, map(float, values), strict=True)), abs=1e-5)


@pytest.mark.parametrize("model, kind", [("bert", "text"), ("bert", "token"), ("vit", "image")])
def test_transformers_draws_no_head_for_the_mean(tmp_path, model, kind):
    transformers = pytest.importorskip("transformers")
    write(tmp_path, "classification", "mean", model)
    name = {"text": "Sequence", "token": "Token", "image": "Image"}[kind]
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        getattr(transformers, f"AutoModelFor{name}Classification").from_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="Could not load model"):
        transformers.pipeline(f"{kind}-classification", model=str(tmp_path / "model"))


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_the_code_of_an_image_card_gives_the_same_answers(tmp_path, pooling):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    config = studies.digits("all")
    config.model.pooling, config.hparams.epochs = pooling, 1
    study.run(config, tmp_path / "study")
    export.export(tmp_path / "study", tmp_path / "model")
    code = re.search("```python\n(.*?)```", (tmp_path / "model" / "README.md").read_text(), re.DOTALL)[1]
    first_line = 'directory, pixels = "DIRECTORY", torch.zeros([1, 1, 8, 8])'
    assert first_line in code
    image = np.random.default_rng(2).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    names = {
        "directory": str(tmp_path / "model"),
        "pixels": torch.tensor(image.transpose(0, 3, 1, 2) / 127.5 - 1).float(),
        "print": lambda labels: None,
    }
    exec(code.replace(first_line, ""), names)  # noqa: S102
    found = predict.probabilities(predict.load(tmp_path / "model"), {"image": image})
    np.testing.assert_allclose(found, names["outputs"].softmax(-1).numpy(), atol=1e-5)
