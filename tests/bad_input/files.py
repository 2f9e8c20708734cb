"""Files that are bad, as commands name them."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from finetune import models
from finetune.config import ModelConfig
from finetune.models.weights import exported
from tests.helpers import exports
from tests.helpers.mistakes import VIT

TEXT = "\n".join(["text,label"] + [f"{word} {word},{word}" for word in ("good", "bad") * 10])
BERT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
BERT |= {"vocab_size": 9, "max_position_embeddings": 9, "type_vocab_size": 2}


def write(directory: Path) -> None:
    """Writes all inputs that the tables name."""
    (directory / "vit.py").write_text(VIT)
    _write_texts(directory)
    _write_tokenizers(directory)
    _write_arrays(directory)
    _write_images(directory)
    _write_weights(directory)
    _write_models(directory)
    (directory / "empty").mkdir()


def _write_texts(directory: Path) -> None:
    for name, content in {
        "texts.csv": TEXT,
        "empty.csv": "text,label\n",
        "quote.csv": 'text,label\n"good,good\n',
        "wide.csv": "text,label\ngood,good,bad\n",
        "nolabel.csv": "text,label\ngood,good\nbad, \n",
        "list.jsonl": '["good", "bad"]\n',
        "deep.jsonl": "[" * 100_000,
        "null.jsonl": '{"text": null, "label": "good"}\n',
        "half.jsonl": '{"text": "good", "label": "\\ud800"}\n',
        "folder/held_out.csv": TEXT,
        "empty.txt": "\n\n",
        "words.txt": "good\n",
        "column.csv": "body\ngood\n",
    }.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(content)
    for suffix in ("csv", "txt"):
        (directory / f"latin.{suffix}").write_bytes("text,label\ngrün,ja\n".encode("latin-1"))


def _write_tokenizers(directory: Path) -> None:
    for name, first, second in (
        ("tokenizer.json", 1, "bad"),
        ("large.json", 40000, "bad"),
        ("strict.json", 1, "worse"),  # knows no token for what is unknown
    ):
        words = {"good": first, second: first + 1}
        tokenizer = Tokenizer(WordLevel(words if name == "strict.json" else {"[UNK]": 0} | words, "[UNK]"))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.save(str(directory / name))
    # The library itself would write every number below it, too.
    (directory / "largest.json").write_text((directory / "large.json").read_text().replace("40000", str(2**31)))


def _write_arrays(directory: Path) -> None:
    images, labels = np.zeros((10, 8, 8), np.uint8), np.arange(10) % 2
    np.savez(directory / "whole.npz", x_train=images, y_train=labels)
    (directory / "cut.npz").write_bytes((directory / "whole.npz").read_bytes()[:300])
    np.savez(directory / "pickled.npz", x_train=images, y_train=np.array([{}] * 10))
    np.savez(directory / "negative.npz", x_train=images, y_train=labels - 1)
    np.savez(directory / "unseen.npz", x_train=images, y_train=labels, x_test=images, y_test=labels + 6)
    np.savez(directory / "features.npz", x_train=np.zeros((10, 3)), y_train=labels)
    np.savez(directory / "nan.npz", x_train=images * np.nan, y_train=labels)
    np.savez(directory / "fewer.npz", x_train=images, y_train=labels[1:])
    np.savez(directory / "channels.npz", x_train=np.zeros((10, 32, 32, 4), np.uint8), y_train=labels)
    np.savez(directory / "names.npz", images=images, y_train=labels)


def _write_images(directory: Path) -> None:
    for split, label in ((split, label) for split in ("train", "test") for label in "ab"):
        for folder in ("images", "sizes"):
            (directory / folder / split / label).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(directory / folder / split / label / "0.png")
    (directory / "images/train/a/broken.png").write_text("not pixels")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(directory / "sizes/train/a/1.png")


def _write_weights(directory: Path) -> None:
    not_json = b"\x08\x00\x00\x00\x00\x00\x00\x00not json"
    for name, settings, weights in (
        ("bert", BERT, not_json),
        ("void", BERT, b""),
        ("deep", BERT | {"num_hidden_layers": 10**9}, b""),
        ("wide", BERT | {"hidden_size": 2**40}, b""),
        ("fraction", BERT | {"hidden_size": 8.5}, b""),
        ("infinite", BERT | {"layer_norm_eps": float("inf")}, b""),
        ("tanh", BERT | {"hidden_act": "tanh"}, b""),
        ("lacking", {"hidden_size": 8}, b""),
        ("list", [], b""),
    ):
        (directory / name).mkdir()
        (directory / name / "config.json").write_text(json.dumps(settings))
        (directory / name / "model.safetensors").write_bytes(weights)
    (directory / "nested").mkdir()
    (directory / "nested" / "config.json").write_text("[" * 100_000)
    (directory / "nested" / "model.safetensors").write_bytes(b"")
    (directory / "pickled").mkdir()
    (directory / "pickled" / "pytorch_model.bin").write_bytes(b"\x80")
    (directory / "lite0.pth").write_bytes(b"\x80")


def _write_network(directory: Path, description: dict[str, Any]) -> None:
    """Writes an exported EfficientNet one of whose blocks is called by another number."""
    sizes = {"width": 8, "depth": 1}
    example = {"image": jax.ShapeDtypeStruct((32, 32, 3), np.uint8)}
    leaves = exports.drawn(models.build(ModelConfig(name="efficientnet", pretrained="", **sizes), 2, example))
    leaves["block_7/depthwise/kernel"] = leaves.pop("block_0/depthwise/kernel")
    (directory / "network").mkdir()
    architecture = {"model": "efficientnet", **sizes, "epsilon": 1e-3}
    exported.write(directory / "network", description | {"architecture": architecture}, leaves, None)


def _write_models(directory: Path) -> None:
    """Writes exported models: one that is whole, and others with a file changed."""
    description: dict[str, Any] = {
        "architecture": exports.ARCHITECTURE,
        "model": {"dtype": "float32", "pooling": "mean"},
        "data": {"text_column": "text", "max_length": 6, "image_size": 0},
        "classes": ["a", "b"],
    }
    _write_network(directory, description)
    model = directory / "model"
    model.mkdir()
    exported.write(model, description, exports.small(exports.drawn(exports.text_task())), directory / "tokenizer.json")
    for name, file, content in (
        ("model format 2", "finetune.json", json.dumps(description | {"format": 2})),
        ("model cut", "finetune.json", (model / "finetune.json").read_text()[:50]),
        ("model list", "finetune.json", "[]"),
        ("model dtype", "finetune.json", json.dumps(description | {"format": 1, "model": {"dtype": "int8"}})),
        ("model unknown", "finetune.json", json.dumps(description | {"format": 1, "model": {"size": 3}})),
        ("model classes", "finetune.json", json.dumps(description | {"format": 1, "classes": ["a", 3]})),
        ("model 3 classes", "finetune.json", json.dumps(description | {"format": 1, "classes": ["a", "b", "c"]})),
        ("model weights", "model.safetensors", "\x08"),
        ("model head", "2_Dense/model.safetensors", ""),
        ("model tokenizer", "tokenizer.json", "{}"),
    ):
        shutil.copytree(model, directory / name)
        (directory / name / file).write_text(content)
