import json
import logging

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from finetune.config import ModelConfig
from finetune.errors import UserError
from finetune.models.weights import huggingface, pretrained


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
        ({"model_type": "t5"}, "model_type is 't5', allowed: bert, "),
        ({"model_type": "albert"}, "model_type is 'albert', whose blocks are one, allowed: bert, "),
        ({"hidden_act": "tanh"}, "hidden_act is 'tanh', allowed: 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "is 'relative_key', allowed: 'absolute'"),
        ({"hidden_size": None}, "hidden_size missing"),
        (
            {"is_decoder": True},
            "config.json: is_decoder is 'True', which is not known here and may change what is computed",
        ),
        ({"add_cross_attention": True}, "add_cross_attention is 'True', "),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is .*, allowed: false or null"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is "),
        ({"auto_map": {"AutoModel": "modeling.Other"}}, "auto_map is "),
        ({"rotary_value": 1}, "rotary_value is '1'"),
    ],
)
def test_settings_that_are_not_supported(bert_tensors, bert_config, save_bert, change, message):
    settings = {name: value for name, value in {**bert_config, **change}.items() if value is not None}
    with pytest.raises(UserError, match=message):
        huggingface.architecture(save_bert(bert_tensors, settings) / "model.safetensors")


# What transformers 5.24 and 4.8 and Google's own converter write beside the sizes.
HARMLESS = {"add_cross_attention": False, "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1}
HARMLESS |= {"bos_token_id": None, "classifier_dropout": None, "dtype": "float32", "hidden_dropout_prob": 0.1}
HARMLESS |= {"initializer_range": 0.02, "is_decoder": False, "pad_token_id": 0, "tie_word_embeddings": True}
HARMLESS |= {"transformers_version": "5.24.0", "use_cache": True, "id2label": {"0": "no"}, "label2id": {"no": 0}}
HARMLESS |= {"_name_or_path": "nreimers/MiniLM-L6-H384-uncased", "gradient_checkpointing": False, "pruned_heads": {}}
HARMLESS |= {"directionality": "bidi", "pooler_fc_size": 768, "pooler_type": "first_token_transform", "min_length": 0}
HARMLESS |= {"torch_dtype": "float16", "problem_type": "regression", "max_length": 20, "length_penalty": 1.0}
HARMLESS |= {"chunk_size_feed_forward": 8, "_attn_implementation_autoset": True, "output_past": True}


def test_settings_that_change_nothing_are_passed_over(bert_tensors, bert_config, save_bert):
    plain = huggingface.architecture(save_bert(bert_tensors) / "model.safetensors")
    path = save_bert(bert_tensors, {**bert_config, **HARMLESS}, "more") / "model.safetensors"
    (path.parent / "config.json").write_text("\ufeff" + (path.parent / "config.json").read_text(), encoding="utf-8")
    assert huggingface.architecture(path) == plain


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


def shard(directory, bert_tensors):
    """Writes the tensors as two shards with their index, which is returned."""
    names = sorted(bert_tensors)
    weight_map = {}
    for number, part in ((1, names[:20]), (2, names[20:])):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: np.ascontiguousarray(bert_tensors[name]) for name in part}, directory / file)
        weight_map |= dict.fromkeys(part, file)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def test_shards_are_one_checkpoint(bert_tensors, save_bert, tmp_path):
    whole = save_bert(bert_tensors) / "model.safetensors"
    expected = huggingface.parameters(whole)
    sharded = save_bert(bert_tensors, name="sharded")
    (sharded / "model.safetensors").unlink()
    index = shard(sharded, bert_tensors)
    for path in (sharded, index):
        config = ModelConfig(pretrained=str(path))
        assert pretrained.architecture(config) == huggingface.architecture(whole)
        found = huggingface.parameters(index)
        assert found.keys() == expected.keys()
        assert all((found[name] == expected[name]).all() for name in expected)
        before = pretrained.content_hash(config)
    second = sharded / "model-00002-of-00002.safetensors"
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    assert pretrained.content_hash(config) != before


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (None, "cannot read .*index.json as an index of shards"),
        (
            {"a": "../other.safetensors"},
            r"names the file '../other.safetensors', allowed: .safetensors files beside it",
        ),
        ({"a": "weights.bin"}, "names the file 'weights.bin'"),
        ({"a": "absent.safetensors"}, "cannot read .*absent.safetensors as safetensors"),
        ({"a": "shard.safetensors"}, "shard.safetensors and .* differ in 'b', allowed: shards of one model"),
        ({"a": "shard.safetensors", "b": "shard.safetensors", "c": "shard.safetensors"}, "differ in 'c'"),
    ],
)
def test_shards_that_do_not_fit_their_index(tmp_path, weight_map, message):
    save_file({name: np.ones(1, np.float32) for name in "ab"}, tmp_path / "shard.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({} if weight_map is None else {"weight_map": weight_map}))
    with pytest.raises(UserError, match=message):
        huggingface.parameters(index)
