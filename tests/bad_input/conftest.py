"""Files that are bad, and commands that must fail."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from mistakes import VIT, check_error
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from finetune import __main__

TEXT = "\n".join(["text,label"] + [f"{word} {word},{word}" for word in ("good", "bad") * 10])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A directory of files that tests name; most of them are bad."""
    directory = tmp_path_factory.mktemp("inputs")
    (directory / "vit.py").write_text(VIT)
    (directory / "texts.csv").write_text(TEXT)
    (directory / "empty.csv").write_text("text,label\n")
    (directory / "latin.csv").write_bytes("text,label\ngrün,ja\n".encode("latin-1"))
    for name, first in (("tokenizer.json", 1), ("large.json", 40000)):
        tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "good": first, "bad": first + 1}, "[UNK]"))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.save(str(directory / name))
    _write_arrays(directory)
    _write_bert(directory / "bert")
    (directory / "empty").mkdir()
    for split, label in ((split, label) for split in ("train", "test") for label in "ab"):
        (directory / "images" / split / label).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(directory / "images" / split / label / "0.png")
    (directory / "images/train/a/broken.png").write_text("not pixels")
    return directory


def _write_arrays(directory: Path) -> None:
    images, labels = np.zeros((10, 8, 8), np.uint8), np.arange(10) % 2
    np.savez(directory / "whole.npz", x_train=images, y_train=labels)
    (directory / "cut.npz").write_bytes((directory / "whole.npz").read_bytes()[:300])
    np.savez(directory / "pickled.npz", x_train=images, y_train=np.array([{}] * 10))
    np.savez(directory / "negative.npz", x_train=images, y_train=labels - 1)
    np.savez(directory / "unseen.npz", x_train=images, y_train=labels, x_test=images, y_test=labels + 6)
    np.savez(directory / "features.npz", x_train=np.zeros((10, 3)), y_train=labels)


def _write_bert(directory: Path) -> None:
    directory.mkdir()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    sizes |= {"vocab_size": 9, "max_position_embeddings": 9, "type_vocab_size": 2}
    (directory / "config.json").write_text(json.dumps(sizes))
    (directory / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00not json")


@pytest.fixture
def fails(monkeypatch, capsys):
    """Returns a function that runs a command line in this process and checks that it fails with one line of words."""

    def run(arguments, words):
        monkeypatch.setattr(sys, "argv", ["finetune", *map(str, arguments)])
        sys.modules.pop("config_config", None)  # as it is called, lest one file lend its names to the next
        status = __main__.main()
        check_error(status, capsys.readouterr().err, words)

    return run


@pytest.fixture
def refused(inputs, tmp_path, fails, monkeypatch):
    """Returns a function that checks that a study of vit.py with other flags fails with words, before it starts."""

    def run(arguments, words):
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
        arguments = [each.format(inputs=inputs) if "{inputs}" in each else each for each in arguments]
        fails([f"--config={inputs}/vit.py", f"--workdir={tmp_path}/study", *arguments], words)
        assert not (tmp_path / "study" / "config.json").exists()

    return run
