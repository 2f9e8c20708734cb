"""The benchmarks run, on a tiny random encoder and few texts, and print what they promise."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WORDS = ("good", "fine", "bad", "poor", "film", "book")
SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
SIZES |= {"vocab_size": 8, "max_position_embeddings": 8, "type_vocab_size": 2, "layer_norm_eps": 1e-12}


def tensors():
    """Yields the name and the shape of every tensor of an encoder of these SIZES."""
    width, hidden = SIZES["hidden_size"], SIZES["intermediate_size"]
    for name, rows in (
        ("word", "vocab_size"),
        ("position", "max_position_embeddings"),
        ("token_type", "type_vocab_size"),
    ):
        yield f"embeddings.{name}_embeddings.weight", (SIZES[rows], width)
    norms = ["embeddings.LayerNorm"]
    for block in (f"encoder.layer.{index}" for index in range(SIZES["num_hidden_layers"])):
        dense = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")}
        dense |= {"attention.output.dense": (width, width)}
        dense |= {"intermediate.dense": (hidden, width), "output.dense": (width, hidden)}
        for name, shape in dense.items():
            yield f"{block}.{name}.weight", shape
            yield f"{block}.{name}.bias", shape[:1]
        norms += [f"{block}.attention.output.LayerNorm", f"{block}.output.LayerNorm"]
    for norm in norms:
        yield f"{norm}.weight", (width,)
        yield f"{norm}.bias", (width,)


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    """The flags that put a random encoder and 60 short texts in the place of MiniLM and Reuters."""
    directory = tmp_path_factory.mktemp("tiny")
    random = np.random.default_rng(0)
    save_file(
        {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in tensors()},
        directory / "model.safetensors",
    )
    settings = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    (directory / "config.json").write_text(json.dumps({**SIZES, **settings}))
    words = ("[PAD]", "[UNK]", *WORDS)
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    texts = [" ".join(random.choice(WORDS, random.integers(2, 7))) for _ in range(60)]
    lines = [f"{text},{'yes' if text.split()[0] in WORDS[:2] else 'no'}" for text in texts]
    (directory / "train.csv").write_text("\n".join(["text,label", *lines]))
    data = f"--config.data.name={directory / 'train.csv'}"
    sizes = ("--config.data.train_examples=24", "--config.data.validation_examples=8", "--config.hparams.batch_size=8")
    quick = ("--config.evaluation.batch_size=8", "--config.execution.mode=vmap")
    return [f"--config.model.pretrained={directory}", data, *sizes, *quick]


def run(script, *arguments):
    """Runs a benchmark and returns what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("script", ["sweep.py", "scaling.py", "peer_torch.py", "headline.py"])
def test_every_benchmark_says_what_it_is(script):
    command = [sys.executable, str(BENCHMARKS / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert f"python benchmarks/{script}" in done.stdout


def test_a_wrong_setting_is_one_line(overrides):
    command = [sys.executable, str(BENCHMARKS / "sweep.py"), *overrides, "--config.hparams.dropout=0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("error: the solo runs have no dropout")


def test_members_equal_their_solo_runs_and_the_bound_is_the_formula(overrides):
    flags = ["--regime=last:1", "--trunk=cached", "--members=3", "--epochs=5", "--batches=2", "--repeats=1", "--json"]
    result = json.loads(run("sweep.py", *flags, *overrides))
    assert result["difference"] < 1e-5
    assert 0 < result["difference_of_change"] < 1e-2
    f = result["frozen_share"]
    assert f == pytest.approx(1 / 2, abs=0.05)  # of 2 blocks of one size; embeddings and head cost next to nothing
    assert result["bound"] == pytest.approx(15 * (3 - 2 * f) / (45 - 44 * f))
    solo = min(result["seconds"]["stepped"], result["seconds"]["scanned"])
    together = result["seconds"]["pass"] + 5 * result["seconds"]["population"]
    assert result["speedup"] == pytest.approx(3 * 5 * solo / together)


def test_scaling_draws_a_plot(overrides, tmp_path):
    flags = ["--members=1", "--examples=", "--epochs=", f"--output={tmp_path / 'plot.svg'}"]
    printed = run("scaling.py", *flags, *overrides)
    assert "encoder in every step" in printed
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")


def test_the_peer_trains_the_same_trials(overrides, tmp_path):
    if not all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        assert "skipped" in run("peer_torch.py")
        return
    printed = run("peer_torch.py", f"--workdir={tmp_path}", "--config.hparams.epochs=2", *overrides)
    assert "validation accuracies of the same trial differ by 0.0000 at most" in printed
    assert "times ours" in printed
