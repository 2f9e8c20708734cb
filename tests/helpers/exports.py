"""Studies and models for the tests of what leaves a study: small, and with names that would do harm if they could."""

import csv
import json

import jax
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from finetune import models
from finetune.config import Config, DataConfig, ModelConfig
from finetune.member.params import flatten
from finetune.models.weights import huggingface

WORDS = ("good", "bad", "film", "book", "very", "not")
CLASSES = ("<script>alert('x')</script>", "a|b `c` [d](javascript:e)")
SIZES = {"width": 8, "depth": 2, "heads": 2, "mlp_width": 12}
ARCHITECTURE = {"model": "bert", **SIZES, "vocabulary": 9, "positions": 12, "token_types": 2, "epsilon": 1e-5}


def texts(count):
    """Returns texts of 1 to 9 known and unknown words, the same at every call."""
    random = np.random.default_rng(0)
    return [" ".join(random.choice([*WORDS, "unheard"], random.integers(1, 10))) for _ in range(count)]


def drawn(task):
    """Returns params of a task as NumPy draws them, large enough to matter, {path: array}."""
    random = np.random.default_rng(3)
    shapes = flatten(jax.eval_shape(task.init, jax.random.key(0)))
    return {path: random.normal(0, 0.5, leaf.shape).astype(leaf.dtype) for path, leaf in sorted(shapes.items())}


def text_task():
    """Returns the task of a BERT of ARCHITECTURE's block sizes, with the defaults of all else."""
    example = {"input_ids": jax.ShapeDtypeStruct((7,), np.uint16), "length": jax.ShapeDtypeStruct((), np.int32)}
    return models.build(ModelConfig(pretrained="", **SIZES), len(CLASSES), example)


def small(leaves):
    """Returns `leaves` of `text_task` with as many words and positions as ARCHITECTURE."""
    rows = {"embeddings/word/embedding": ARCHITECTURE["vocabulary"], "embeddings/position/embedding": 12}
    return {path: leaf[: rows.get(path, len(leaf))] for path, leaf in leaves.items()}


def write_tokenizer(directory):
    """Writes a tokenizer.json of WORDS, [PAD] and [UNK]."""
    tokenizer = Tokenizer(WordLevel({name: number for number, name in enumerate(("[PAD]", "[UNK]", *WORDS))}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory / "tokenizer.json"


def write_table(file, count):
    """Writes a table of texts, classes by turns."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["review", "verdict"])
        writer.writerows(zip(texts(count), CLASSES * count, strict=False))


def text_config(directory):
    """Returns the config of a study of texts in `directory`, which gets weights, tokenizer and data."""
    leaves = {k: v for k, v in small(drawn(text_task())).items() if not k.startswith("head/")}
    tensors = huggingface.tensors(leaves, ARCHITECTURE)
    save_file(tensors, directory / "model.safetensors")
    document = huggingface.config_document(ARCHITECTURE)
    (directory / "config.json").write_text(json.dumps(document))
    write_tokenizer(directory)
    write_table(directory / "texts.csv", 40)
    config = Config(trainable="last:1")
    config.model = ModelConfig(pretrained=str(directory))
    config.data = DataConfig(name=str(directory / "texts.csv"), text_column="review", label_column="verdict")
    config.data.max_length = 6
    config.hparams.epochs, config.hparams.batch_size, config.hparams.learning_rate = 2, 8, 0.01
    config.execution.mode, config.execution.devices, config.checkpoint.keep = "vmap", 1, 2
    return config
