"""Tiny random checkpoints in the two foreign formats, as they are written by the projects that own the formats."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

BERT = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
BERT |= {"vocab_size": 11, "max_position_embeddings": 9, "type_vocab_size": 2, "layer_norm_eps": 1e-5}
BERT |= {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


@pytest.fixture
def draw_params():
    """Returns a function of an init function and its arguments: params of its shapes, large enough to matter.

    NumPy draws them, because compiling the initialisers takes longer than the tests.
    """

    def draw(init, *arguments):
        random = np.random.default_rng(3)
        shapes = jax.eval_shape(init, jax.random.key(0), *arguments)
        return jax.tree.map(lambda leaf: random.normal(0, 0.3, leaf.shape).astype(leaf.dtype), shapes)

    return draw


@pytest.fixture
def bert_config():
    return dict(BERT)


@pytest.fixture
def bert_tensors():
    """Every tensor of a BertModel with sizes BERT, under its Hugging Face name, dense weights [out, in]."""
    random = np.random.default_rng(0)
    draw = lambda *shape: random.normal(0, 0.5, shape).astype(np.float32)  # noqa: E731
    width, hidden = BERT["hidden_size"], BERT["intermediate_size"]
    tensors = {
        "embeddings.word_embeddings.weight": draw(BERT["vocab_size"], width),
        "embeddings.position_embeddings.weight": draw(BERT["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": draw(2, width),
        "embeddings.LayerNorm.weight": 1 + draw(width),
        "embeddings.LayerNorm.bias": draw(width),
    }
    for index in range(BERT["num_hidden_layers"]):
        shapes = {
            "attention.self.query": (width, width),
            "attention.self.key": (width, width),
            "attention.self.value": (width, width),
            "attention.output.dense": (width, width),
            "attention.output.LayerNorm": (width,),
            "intermediate.dense": (hidden, width),
            "output.dense": (width, hidden),
            "output.LayerNorm": (width,),
        }
        for name, shape in shapes.items():
            tensors[f"encoder.layer.{index}.{name}.weight"] = draw(*shape) + (1 if "LayerNorm" in name else 0)
            tensors[f"encoder.layer.{index}.{name}.bias"] = draw(shape[0])
    return tensors


@pytest.fixture
def save_bert(tmp_path, bert_config):
    """Returns a function that writes (tensors, settings) as a Hugging Face directory and returns its path."""

    def save(tensors, settings=None, name="bert"):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, directory / "model.safetensors")
        (directory / "config.json").write_text(json.dumps(bert_config if settings is None else settings))
        return directory

    return save


@pytest.fixture
def vit_arrays():
    """Every array of an AugReg ViT: width 6, 2 blocks, 3 heads, MLP 10, patches of 2 pixels, 2 channels, 2 x 2 grid."""
    random = np.random.default_rng(1)
    draw = lambda *shape: random.normal(0, 0.5, shape).astype(np.float32)  # noqa: E731
    arrays = {
        "cls": draw(1, 1, 6),
        "embedding/kernel": draw(2, 2, 2, 6),
        "embedding/bias": draw(6),
        "Transformer/posembed_input/pos_embedding": draw(1, 5, 6),
        "Transformer/encoder_norm/scale": 1 + draw(6),
        "Transformer/encoder_norm/bias": draw(6),
        "pre_logits/kernel": draw(6, 6),
        "pre_logits/bias": draw(6),
        "head/kernel": draw(6, 4),
        "head/bias": draw(4),
    }
    for index in range(2):
        block = f"Transformer/encoderblock_{index}"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            arrays[f"{block}/{norm}/scale"] = 1 + draw(6)
            arrays[f"{block}/{norm}/bias"] = draw(6)
        for part in ("query", "key", "value"):
            arrays[f"{block}/MultiHeadDotProductAttention_1/{part}/kernel"] = draw(6, 3, 2)
            arrays[f"{block}/MultiHeadDotProductAttention_1/{part}/bias"] = draw(3, 2)
        arrays[f"{block}/MultiHeadDotProductAttention_1/out/kernel"] = draw(3, 2, 6)
        arrays[f"{block}/MultiHeadDotProductAttention_1/out/bias"] = draw(6)
        arrays[f"{block}/MlpBlock_3/Dense_0/kernel"] = draw(6, 10)
        arrays[f"{block}/MlpBlock_3/Dense_0/bias"] = draw(10)
        arrays[f"{block}/MlpBlock_3/Dense_1/kernel"] = draw(10, 6)
        arrays[f"{block}/MlpBlock_3/Dense_1/bias"] = draw(6)
    return arrays
