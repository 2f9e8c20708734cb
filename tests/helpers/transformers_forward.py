"""What three classes of transformers 5 compute, in NumPy: read from a directory by their own names of tensors.

Nothing of finetune is used: what these names mean is from transformers' modeling_bert.py and modeling_vit.py.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.special import erf


class _Model:
    def __init__(self, directory: Path):
        self.config = json.loads((directory / "config.json").read_text())
        stored = load_file(directory / "model.safetensors")
        # A class with a head has the encoder under a name of its own; AutoModel takes it with that name or without.
        prefix = f"{self.config['model_type']}."
        self.tensors = {name.removeprefix(prefix): array.astype(np.float64) for name, array in stored.items()}
        assert any(name.startswith(prefix) for name in stored) == ("architectures" in self.config)

    def dense(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + self.config["layer_norm_eps"])
        return x * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def attention(self, name: str, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Returns [B, T, D]; `mask` [B, T] is 1 where a position is attended to."""
        heads = self.config["num_attention_heads"]

        def project(part: str) -> np.ndarray:
            return self.dense(f"{name}.{part}", x).reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

        query, key, value = map(project, ("query", "key", "value"))
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1])
        scores = np.where(mask[:, None, None], scores, -1e30)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True)) @ value
        return mixed.transpose(0, 2, 1, 3).reshape(x.shape)


def bert_hidden(model: _Model, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns BertModel's last_hidden_state [B, T, D] within a class with a head."""
    assert model.config["model_type"] == "bert"
    assert model.config["hidden_act"] == "gelu"
    word, position, kind = (
        model.tensors[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    x = model.norm("embeddings.LayerNorm", word[ids] + position[: ids.shape[1]] + kind[0])
    for number in range(model.config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        branch = model.dense(f"{layer}.attention.output.dense", model.attention(f"{layer}.attention.self", x, mask))
        x = model.norm(f"{layer}.attention.output.LayerNorm", x + branch)
        up = model.dense(f"{layer}.intermediate.dense", x)
        branch = model.dense(f"{layer}.output.dense", up * (1 + erf(up / np.sqrt(2))) / 2)
        x = model.norm(f"{layer}.output.LayerNorm", x + branch)
    return x


def mean_logits(directory: Path, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns [B, C]: what a card tells to do with AutoModel and the head beside it."""
    hidden, weight = bert_hidden(_Model(directory), ids, mask), mask[:, :, None]
    head = load_file(directory / "2_Dense" / "model.safetensors")
    return (hidden * weight).sum(1) / weight.sum(1) @ head["linear.weight"].T + head["linear.bias"]


def logits(directory: Path, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the logits of the class that config.json names: of texts [B, C], or of their tokens [B, T, C]."""
    model = _Model(directory)
    hidden = bert_hidden(model, ids, mask)
    [name] = model.config["architectures"]
    if name == "BertForTokenClassification":
        return model.dense("classifier", hidden)
    assert name == "BertForSequenceClassification"
    return model.dense("classifier", np.tanh(model.dense("pooler.dense", hidden[:, 0])))


def image_logits(directory: Path, pixels: np.ndarray) -> np.ndarray:
    """Returns what ViTForImageClassification gives for `pixels` [B, C, H, W]."""
    model = _Model(directory)
    assert model.config["architectures"] == ["ViTForImageClassification"]
    assert model.config["hidden_act"] == "gelu_pytorch_tanh"
    assert list(pixels.shape[2:]) == model.config["image_size"]
    weight, size = model.tensors["embeddings.patch_embeddings.projection.weight"], model.config["patch_size"]
    patches = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), (2, 3))[:, :, ::size, ::size]
    x = np.einsum("bcyxij,dcij->byxd", patches, weight).reshape(len(pixels), -1, len(weight))
    x = x + model.tensors["embeddings.patch_embeddings.projection.bias"]
    token = np.broadcast_to(model.tensors["embeddings.cls_token"], (len(x), 1, x.shape[2]))
    x = np.concatenate([token, x], 1) + model.tensors["embeddings.position_embeddings"]
    for number in range(model.config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        normed = model.norm(f"{layer}.layernorm_before", x)
        mixed = model.attention(f"{layer}.attention.attention", normed, np.ones(x.shape[:2]))
        x = x + model.dense(f"{layer}.attention.output.dense", mixed)
        up = model.dense(f"{layer}.intermediate.dense", model.norm(f"{layer}.layernorm_after", x))
        up = up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3))) / 2
        x = x + model.dense(f"{layer}.output.dense", up)
    return model.dense("classifier", model.norm("layernorm", x)[:, 0])
