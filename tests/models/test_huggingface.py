import json
import logging

import ml_dtypes
import numpy as np
import pytest

from finetune.errors import UserError
from finetune.models import huggingface


def test_architecture(bert_tensors, save_bert):
    assert huggingface.architecture(save_bert(bert_tensors) / "model.safetensors") == {
        "model": "bert",
        "width": 8,
        "depth": 2,
        "heads": 2,
        "mlp_width": 12,
        "vocabulary": 11,
        "positions": 9,
        "token_types": 2,
        "epsilon": 1e-5,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "distilbert"}, "model_type is 'distilbert', allowed: 'bert'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', allowed: 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "is 'relative_key', allowed: 'absolute'"),
        ({"hidden_size": None}, "hidden_size missing"),
    ],
)
def test_settings_that_are_not_supported(bert_tensors, bert_config, save_bert, change, message):
    settings = {name: value for name, value in {**bert_config, **change}.items() if value is not None}
    with pytest.raises(UserError, match=message):
        huggingface.architecture(save_bert(bert_tensors, settings) / "model.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*config.json"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "no JSON object"),
    ],
)
def test_damaged_settings(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        huggingface.architecture(tmp_path / "model.safetensors")


def test_names_of_heads_are_left_out_with_a_note(bert_tensors, save_bert, caplog):
    extra = {
        "embeddings.position_ids": np.arange(9)[None],
        "pooler.dense.weight": np.ones((8, 8), np.float32),
        "cls.predictions.bias": np.ones(11, np.float32),
        "classifier.weight": np.ones((2, 8), np.float32),
    }
    with caplog.at_level(logging.INFO):
        found = huggingface.parameters(save_bert({**bert_tensors, **extra}) / "model.safetensors")
    assert len(found) == len(bert_tensors)
    assert all(name in caplog.text for name in extra)


def test_prefix_and_older_norm_names_mean_the_same(bert_tensors, save_bert):
    plain = huggingface.parameters(save_bert(bert_tensors) / "model.safetensors")
    older = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in bert_tensors.items()
    }
    again = huggingface.parameters(save_bert(older, name="older") / "model.safetensors")
    assert plain.keys() == again.keys()
    for path, leaf in plain.items():
        np.testing.assert_array_equal(again[path], leaf)
    np.testing.assert_array_equal(
        plain["block_1/mlp/up/kernel"], bert_tensors["encoder.layer.1.intermediate.dense.weight"].T
    )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_read(bert_tensors, save_bert, dtype):
    stored = {name: tensor.astype(dtype) for name, tensor in bert_tensors.items()}
    found = huggingface.parameters(save_bert(stored) / "model.safetensors")
    assert found["embeddings/word/embedding"].dtype == dtype
    expected = stored["embeddings.word_embeddings.weight"].astype(np.float32)
    np.testing.assert_array_equal(found["embeddings/word/embedding"].astype(np.float32), expected)


def _long_header(content):
    return (1 << 60).to_bytes(8, "little") + content[8:]


def _bad_json(content):
    return content[:8] + b"x" + content[9:]


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-7], _long_header, _bad_json])
def test_damaged_weights(bert_tensors, save_bert, damage):
    path = save_bert(bert_tensors) / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="cannot read .*model.safetensors as safetensors") as caught:
        huggingface.parameters(path)
    assert "\n" not in str(caught.value)


def test_dtype_that_the_format_does_not_know(tmp_path):
    header = json.dumps({"x": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(UserError, match="as safetensors"):
        huggingface.parameters(tmp_path / "model.safetensors")
