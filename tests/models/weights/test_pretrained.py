import hashlib
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from finetune import models
from finetune.config import ModelConfig
from finetune.errors import UserError
from finetune.member.params import abstract, flatten
from finetune.models.weights import from_study, pretrained

TEXT = {"input_ids": jax.ShapeDtypeStruct((7,), jnp.uint16), "length": jax.ShapeDtypeStruct((), jnp.int32)}


def image(*shape):
    return {"image": jax.ShapeDtypeStruct(shape, jnp.uint8)}


def loaded(config, example):
    return pretrained.load(config, abstract(models.build(config, 3, example)), "head")


def test_random_weights_have_no_source():
    config = ModelConfig(pretrained="", width=8, depth=1, heads=2, mlp_width=8)
    assert loaded(config, TEXT) == {}
    assert pretrained.architecture(config) is None
    assert pretrained.directory(config) is None
    assert pretrained.tokenizer_file(config) is None
    assert pretrained.content_hash(config) == ""


def test_every_leaf_but_the_head_is_loaded(bert_tensors, save_bert):
    directory = save_bert(bert_tensors)
    for path in (directory, directory / "model.safetensors"):
        config = ModelConfig(pretrained=str(path))
        leaves = loaded(config, TEXT)
        expected = abstract(models.build(config, 3, TEXT))
        assert set(leaves) == {path for path in expected if not path.startswith("head/")}
        assert all(type(leaf) is np.ndarray and leaf.dtype == np.float32 for leaf in leaves.values())
        assert pretrained.directory(config) == directory
        assert pretrained.tokenizer_file(config) is None
        content = (directory / "model.safetensors").read_bytes()
        assert pretrained.content_hash(config) == hashlib.sha256(content).hexdigest()
    (directory / "tokenizer.json").write_text("{}")
    assert pretrained.tokenizer_file(config) == directory / "tokenizer.json"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_become_float32(bert_tensors, save_bert, dtype):
    stored = {name: tensor.astype(dtype) for name, tensor in bert_tensors.items()}
    leaves = loaded(ModelConfig(pretrained=str(save_bert(stored))), TEXT)
    kernel = leaves["block_0/mlp/up/kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, stored["encoder.layer.0.intermediate.dense.weight"].astype(np.float32).T)


def test_error_lists_what_does_not_fit(bert_tensors, save_bert):
    word, query = "embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"
    del bert_tensors["encoder.layer.1.output.dense.bias"]
    bert_tensors[word] = bert_tensors[word][:5]
    bert_tensors[query] = bert_tensors[query].astype(np.int64)
    bert_tensors |= {f"encoder.layer.2.unknown.{index}": np.ones(1, np.float32) for index in range(7)}
    directory = save_bert(bert_tensors)
    with pytest.raises(UserError) as caught:
        loaded(ModelConfig(pretrained=str(directory)), TEXT)
    assert str(caught.value) == (
        f"weights of {directory / 'model.safetensors'} do not fit the model: "
        "1 missing: block_1/mlp/down/bias; "
        "7 unexpected: encoder.layer.2.unknown.0, encoder.layer.2.unknown.1, encoder.layer.2.unknown.2, "
        "encoder.layer.2.unknown.3, encoder.layer.2.unknown.4, ...; "
        "1 of another shape: embeddings/word/embedding [5, 8] where [11, 8] is needed; "
        "1 not floating point: block_0/attention/query/kernel int64"
    )


def test_positions_of_another_image_size_are_interpolated(vit_arrays, tmp_path):
    # Along each axis, two values a, b become a, (3a + b)/4, (a + 3b)/4, b: pixel centres lie at half-integers.
    position = vit_arrays["Transformer/posembed_input/pos_embedding"]
    np.savez(tmp_path / "vit.npz", **vit_arrays)
    leaves = loaded(ModelConfig(name="vit", pretrained=str(tmp_path / "vit.npz")), image(8, 8, 2))
    along = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    expected = np.einsum("ri,cj,ijd->rcd", along, along, position[0, 1:].reshape(2, 2, 6))
    np.testing.assert_allclose(leaves["embeddings/position"], expected, atol=1e-6)
    np.testing.assert_array_equal(leaves["embeddings/class_token"], vit_arrays["cls"][0, 0] + position[0, 0])


@pytest.fixture
def study(tmp_path, monkeypatch, draw_params):
    """The work directory of a study of a tiny ViT on 8 x 8 images, and its parameters."""
    config = ModelConfig(name="vit", pretrained="", width=8, depth=2, heads=2, mlp_width=12, patch_size=2)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"architecture": models.architecture(config)}))
    params = flatten(draw_params(models.build(config, 5, image(8, 8, 1)).init))
    monkeypatch.setattr(from_study, "parameters", lambda path: dict(params))
    return tmp_path, params


def test_weights_of_an_earlier_study(study):
    path, params = study
    config = ModelConfig(name="vit", pretrained=str(path))
    leaves = loaded(config, image(8, 8, 1))
    assert set(leaves) == {name for name in params if not name.startswith("head/")}
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(leaf, params[name])
    assert loaded(config, image(4, 8, 1))["embeddings/position"].shape == (2, 4, 8)
    assert pretrained.directory(config) == path


def test_hash_of_a_study_is_that_of_its_values(study):
    path, params = study
    config = ModelConfig(name="vit", pretrained=str(path))
    before = pretrained.content_hash(config)
    assert pretrained.content_hash(config) == before
    params["norm/bias"] = params["norm/bias"] + 1
    assert pretrained.content_hash(config) != before


def test_study_of_another_model(study):
    path, _ = study
    with pytest.raises(UserError, match="weights of a 'vit', allowed with model.name='bert'"):
        loaded(ModelConfig(pretrained=str(path)), TEXT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read .*config.json"),
        ("{}", "names no architecture"),
        ("[]", "names no architecture"),
        ('{"architecture": {"model": "vit"}}', "depth, epsilon, heads.* are missing or unknown"),
    ],
)
def test_damaged_study(study, content, message):
    path, _ = study
    (path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        loaded(ModelConfig(name="vit", pretrained=str(path)), image(8, 8, 1))


@pytest.mark.parametrize(
    ("pretrained_name", "message"),
    [
        ("minilmm", "model.pretrained is 'minilmm', allowed: .*minilm.*did you mean 'minilm'"),
        ("r8", "model.pretrained is 'r8', allowed: "),
        ("{directory}/..", "holds no model.safetensors"),
        ("{directory}", "weights.pt is a pickle"),
        ("{directory}/weights.h5", r"allowed for a file: \.safetensors, \.npz"),
        ("{directory}/weights.pt", r"weights.pt is a pickle, which can run any code .*allowed: \.safetensors, \.npz"),
        ("{directory}/alone.safetensors", "cannot read .*config.json, which must be beside the weights"),
        ("{directory}/text.npz", "cannot read .*text.npz as .npz"),
    ],
)
def test_sources_that_are_none(tmp_path, pretrained_name, message):
    for name in ("weights.h5", "weights.pt", "alone.safetensors", "text.npz"):
        (tmp_path / name).write_text("not weights")
    with pytest.raises(UserError, match=message) as caught:
        loaded(ModelConfig(pretrained=pretrained_name.format(directory=tmp_path)), TEXT)
    assert "\n" not in str(caught.value)
