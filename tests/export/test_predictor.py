"""Models of the user's own outside their study: run by the config file that defines them, if it still defines them."""

import csv
import io
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from finetune import cli, data, predict
from finetune.errors import UserError
from finetune.export import directory as export
from finetune.export import predictor
from finetune.models.weights import exported
from finetune.storage import checkpoint
from finetune.study import run as study
from tests.helpers import exports
from tests.helpers.studies import document
from tests.study.test_own_studies import prepared

OWN = Path(__file__).parents[1] / "own"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An exported network of plain functions that tells digits apart, and the config of its study."""
    directory = tmp_path_factory.mktemp("own")
    config, task = prepared("functions")
    study.run(config, directory / "study", {"learning_rate": [0.01]}, task=task)
    export.export(directory / "study", directory / "model")
    return directory / "model", config


@pytest.fixture
def run(monkeypatch, capsys):
    """Returns a function that runs the command line and returns (status, rows of CSV, stderr)."""

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
        capsys.readouterr()  # what a study before it printed
        status, (out, err) = cli.run(predict.main), capsys.readouterr()
        return status, list(csv.DictReader(io.StringIO(out))), err

    return start


def write_test_split(config, file):
    test = data.load(config.data, None).test
    np.savez(file, x=test["image"])
    return test["label"]


def test_the_study_reported_what_its_own_model_predicts(model, run, tmp_path):
    directory, config = model
    labels = write_test_split(config, tmp_path / "rows.npz")
    status, rows, err = run(directory, tmp_path / "rows.npz", f"--config={OWN / 'functions_config.py'}")
    assert (status, err) == (0, "")
    recorded = document(directory, "finetune.json")["trial"]["metrics"]
    right = [int(row["label"]) == label for row, label in zip(rows, labels, strict=True)]
    assert np.mean(right) == pytest.approx(recorded["test_accuracy"], abs=1e-6)
    of_label = [float(row[f"p:{label}"]) for row, label in zip(rows, labels, strict=True)]
    assert -np.log(of_label).mean() == pytest.approx(recorded["test_loss"], rel=1e-4)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["a model of your own", "--config=FILE"]),
        (["--config={tmp}/nowhere.py"], ["nowhere.py"]),
        (["--config={tmp}/empty.py"], ["defines no task"]),
        (["--config={tmp}/broken.py"], ["broken.py", "ZeroDivisionError"]),
        (["--config={tmp}/sigmoid.py"], ["computes something else", "as it was"]),
        (["--config={own}/linen_config.py"], ["computes something else"]),
    ],
)
def test_a_task_that_was_not_trained_predicts_nothing(model, run, tmp_path, arguments, words):
    np.savez(tmp_path / "rows.npz", x=np.zeros((2, 8, 8), np.uint8))
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "broken.py").write_text("1 / 0")
    # Parameters of the same names and shapes, and another function of them.
    source = (OWN / "functions_config.py").read_text()
    assert "jnp.tanh" in source
    (tmp_path / "sigmoid.py").write_text(source.replace("jnp.tanh", "jax.nn.sigmoid"))
    given = [each.format(tmp=tmp_path, own=OWN) for each in arguments]
    status, rows, err = run(model[0], tmp_path / "rows.npz", *given)
    assert (status, rows, err.count("\n")) == (2, [], 1)
    for word in words:
        assert word in err


def test_a_program_of_other_versions_is_not_compared(model, run, tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("finetune.json", "model.safetensors"):
        (tmp_path / "model" / name).write_bytes((model[0] / name).read_bytes())
    described = document(tmp_path / "model", "finetune.json")
    described["versions"]["jax"] = "0.0.1"
    described["architecture"]["program"] = "of that version"
    (tmp_path / "model" / "finetune.json").write_text(json.dumps(described))
    np.savez(tmp_path / "rows.npz", x=np.zeros((2, 8, 8), np.uint8))
    status, rows, err = run(tmp_path / "model", tmp_path / "rows.npz", f"--config={OWN / 'functions_config.py'}")
    assert (status, len(rows)) == (0, 2)
    assert err.startswith("note: trained with jax 0.0.1")


def test_images_of_another_kind_than_in_training(model, run, tmp_path):
    for values, words in (
        (np.zeros((2, 8, 8)), ["INPUT holds float32, allowed: uint8"]),
        (np.zeros((2, 6, 8), np.uint8), ["images of INPUT are 6 x 8 x 1, allowed: 8 x 8 x 1"]),
        (np.zeros((2, 9)), ["INPUT holds float32, allowed: uint8"]),
    ):
        np.savez(tmp_path / "rows.npz", x=values)
        status, _, err = run(model[0], tmp_path / "rows.npz", f"--config={OWN / 'functions_config.py'}")
        assert status == 2
        for word in words:
            assert word in err


def test_numbers_from_texts_shorter_than_those_of_training(run, tmp_path):
    texts = exports.texts(40)
    with (tmp_path / "rows.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["review", "stars"])
        writer.writerows([text, 100 + 3 * len(text.split())] for text in texts)
    exports.write_tokenizer(tmp_path)
    defined = runpy.run_path(str(OWN / "numbers_config.py"))
    config = defined["get_config"](str(tmp_path / "rows.csv"))
    config.execution.mode, config.execution.devices = "vmap", 1
    study.run(config, tmp_path / "study", task=defined["task"])
    export.export(tmp_path / "study", tmp_path / "model")
    # The outputs of a task of the user's own are what its loss compares: nothing is scaled.
    [row] = [identity for identity, _ in checkpoint.kept(tmp_path / "study")]
    leaves = checkpoint.load(tmp_path / "study" / "checkpoints" / "trials" / row / "best")
    found = exported.parameters(tmp_path / "model")
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(found[path], leaf)

    short = [text for text in texts if len(text.split()) < 5]
    (tmp_path / "new.txt").write_text("\n".join(short))
    status, rows, err = run(tmp_path / "model", tmp_path / "new.txt", f"--config={OWN / 'numbers_config.py'}")
    assert (status, err) == (0, "")
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {word: place for place, word in enumerate(exports.WORDS, start=2)}
    kernel, bias = leaves["head/kernel"][:, 0], leaves["head/bias"][0]
    wanted = [sum(vocabulary.get(w, 1) * kernel[i] for i, w in enumerate(text.split())) + bias for text in short]
    np.testing.assert_allclose([float(row["value"]) for row in rows], wanted, rtol=1e-4)


def test_a_model_of_finetunes_takes_no_task(tmp_path):
    exports.write_tokenizer(tmp_path)
    (tmp_path / "model").mkdir()
    description = {
        "architecture": exports.ARCHITECTURE,
        "model": {"dtype": "float32", "pooling": "mean"},
        "data": {"text_column": "text", "max_length": 6, "image_size": 0},
        "classes": ["a", "b"],
    }
    leaves = exports.small(exports.drawn(exports.text_task()))
    exported.write(tmp_path / "model", description, leaves, tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match="allowed for a model of your own; .* holds bert"):
        predictor.load(tmp_path / "model", lambda classes, example: None)
