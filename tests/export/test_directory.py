"""A trial outside its study: its files, its card, and the same answers from transformers."""

import errno
import re
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from finetune import cli, predict
from finetune.analysis.answer import analyse
from finetune.analysis.table.trials import read_study
from finetune.config import ModelConfig
from finetune.errors import UserError
from finetune.export import __main__
from finetune.export import directory as export
from finetune.models.weights import pretrained
from finetune.report import terminal
from finetune.storage import checkpoint, records
from finetune.study import run
from tests.helpers import exports
from tests.helpers.studies import document, rows_of


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A study of two learning rates and two seeds that trains the last block of a small BERT."""
    directory = tmp_path_factory.mktemp("texts")
    config = exports.text_config(directory)
    run.run(config, directory / "study", {"learning_rate": [1e-3, 1e-2], "seed": [0, 1]})
    return directory / "study"


@pytest.fixture(scope="module")
def exported(workdir):
    """What the command line made of it."""
    to = workdir.parent / "exported"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export", str(workdir), f"--to={to}"])
        assert cli.run(__main__.main) == 0
    return to


def expected_leaves(workdir, identity):
    directory = workdir / "checkpoints"
    return {**checkpoint.load(directory / "base"), **checkpoint.load(directory / "trials" / identity / "best")}


def test_all_parameters_by_orbax_and_under_transformers_names(workdir, exported):
    leaves = expected_leaves(workdir, document(exported, "finetune.json")["trial"]["id"])
    stored = checkpoint.load(exported / "orbax")
    assert stored.keys() == leaves.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(stored[path], leaf)
    tensors = load_file(exported / "model.safetensors")
    head = load_file(exported / "2_Dense" / "model.safetensors")
    assert tensors.pop("classifier.weight").size == 0  # no class may take this directory for its own
    assert len(tensors) + len(head) == len(leaves)
    for name, expected in {
        "embeddings.LayerNorm.weight": leaves["embeddings/norm/scale"],
        "embeddings.word_embeddings.weight": leaves["embeddings/word/embedding"],
        "encoder.layer.1.attention.self.query.weight": leaves["block_1/attention/query/kernel"].T,
        "encoder.layer.1.attention.output.dense.bias": leaves["block_1/attention/output/bias"],
        "encoder.layer.0.output.LayerNorm.bias": leaves["block_0/mlp_norm/bias"],
        "encoder.layer.1.intermediate.dense.weight": leaves["block_1/mlp/up/kernel"].T,
    }.items():
        np.testing.assert_array_equal(tensors[name], expected)
    np.testing.assert_array_equal(head["linear.weight"], leaves["head/kernel"].T)


def snippet(card):
    """Returns the code of a card without the line that says what it runs on."""
    code = re.search("```python\n(.*?)```", card, re.DOTALL)[1]
    first_line = 'directory, texts = "DIRECTORY", ["the first text", "the second"]'
    assert first_line in code
    return compile(code.replace(first_line, ""), "card", "exec")


@pytest.mark.parametrize("pooling", ["mean", "first", "max"])
def test_the_code_of_the_card_gives_the_same_answers(workdir, tmp_path, monkeypatch, pooling):
    settings = document(workdir, "config.json")
    settings["config"]["model"]["pooling"] = pooling
    monkeypatch.setattr(export, "_read_study", lambda directory: settings)
    export.export(workdir, tmp_path / "model")
    code = snippet((tmp_path / "model" / "README.md").read_text())
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    texts = exports.texts(20)
    names = {"directory": str(tmp_path / "model"), "texts": texts, "print": lambda labels: None}
    exec(code, names)  # noqa: S102
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    model = predict.load(tmp_path / "model")
    found = predict.probabilities(model, predict.read(tmp_path / "texts.txt", model)[1])
    assert found.std(axis=0).min() > 1e-4  # the texts are told apart
    if pooling != "first":
        theirs = names["outputs"].softmax(-1).numpy()
    else:
        scores = [{each["label"]: each["score"] for each in row} for row in names["outputs"]]
        theirs = [[row[name] for name in exports.CLASSES] for row in scores]
    np.testing.assert_allclose(found, theirs, atol=1e-5)


def test_the_best_mean_is_chosen_and_not_a_lucky_seed(tmp_path, monkeypatch):
    values = {
        "a0": (0.1, 0, 0.95),
        "a1": (0.1, 1, 0.55),
        "b0": (0.2, 0, 0.8),
        "b1": (0.2, 1, 0.9),
        "c0": (0.3, 0, 0.99),
    }
    rows = [
        {
            "id": identity,
            "hparams": {"learning_rate": rate, "seed": seed, "data_seed": 0},
            "status": "complete",
            "metrics": {"val_accuracy": value},
            "best": {"value": value, "epoch": 1},
            "steps": 1,
            "reason": None,
        }
        for identity, (rate, seed, value) in values.items()
    ]
    rows.append(rows[-1] | {"id": "c1", "hparams": rows[-1]["hparams"] | {"seed": 1}, "status": "failed", "best": None})
    records.append(tmp_path / "trials.jsonl", rows)
    monkeypatch.setattr(checkpoint, "kept", lambda workdir: [("a0", 0.95), ("b1", 0.9), ("c0", 0.99)])
    chosen = export._choose(tmp_path, "")
    assert chosen.row["id"] == "b1"
    assert chosen.repeats.sentence() == "its setting ranks 1 of 3 by the mean over 2 seeds"
    # Student's t with one degree of freedom: 12.7062; the standard error of 0.8 and 0.9 is 0.05.
    assert chosen.repeats.summary()["val_accuracy"] == pytest.approx(
        {"mean": 0.85, "low": 0.85 - 12.7062 * 0.05, "high": 0.85 + 12.7062 * 0.05, "seeds": 2}, abs=1e-5
    )
    lost = export._choose(tmp_path, "c0").repeats
    assert lost.sentence() == "its setting ranks 3 of 3 by the mean over 2 seeds; 1 of them have no result"
    assert lost.summary()["val_accuracy"] == {"mean": 0.99, "low": None, "high": None, "seeds": 1}


@pytest.mark.parametrize("values", [(0.9, 0.9), (0.8, 0.9), (0.9, 0.8)])
def test_on_a_tie_the_trial_is_of_the_setting_that_the_answer_names(tmp_path, monkeypatch, values):
    """Two settings of equal means; what is in the rows of one is in those of the other, by other seeds."""
    rows = [
        {
            "id": f"{'ab'[place]}{seed}",
            "hparams": {"learning_rate": rate, "weight_decay": 0.0, "seed": seed, "data_seed": 0},
            "status": "complete",
            "metrics": {"val_accuracy": value},
            "best": {"value": value, "epoch": 1},
            "steps": 1,
            "reason": None,
        }
        for place, rate in enumerate((0.3, 0.1))
        for seed, value in enumerate(values[:: 1 - 2 * place])
    ]
    records.append(tmp_path / "trials.jsonl", rows)
    monkeypatch.setattr(checkpoint, "kept", lambda workdir: [(row["id"], row["best"]["value"]) for row in rows])
    chosen = export._choose(tmp_path, "")
    use = next(line for line in terminal.lines(analyse(read_study(tmp_path)), tmp_path) if "Use: " in line)
    named = re.search("learning_rate ([0-9.]+)", use)
    assert chosen.row["hparams"]["learning_rate"] == float(named[1])
    assert chosen.row["id"] in chosen.use
    others = [(row["id"], row["best"]["value"]) for row in rows if row["id"] not in chosen.use]
    monkeypatch.setattr(checkpoint, "kept", lambda workdir: others)
    assert export._choose(tmp_path, "").use == chosen.use
    assert export._choose(tmp_path, "").row["id"] not in chosen.use


def test_the_card_tells_how_the_model_came_about(workdir, exported):
    card = (exported / "README.md").read_text()
    settings, trial = document(workdir, "config.json"), document(exported, "finetune.json")["trial"]
    row = next(row for row in rows_of(workdir) if row["id"] == trial["id"])
    for expected in (
        settings["description"]["data"],
        settings["description"]["weights"],
        f"| trial | {trial['id']} |",
        f"| learning_rate | {row['hparams']['learning_rate']} |",
        f"| test_accuracy | {row['metrics']['test_accuracy']:.4f} |",
        "| trainable | last:1 |",
    ):
        assert expected in card


def test_names_in_the_card_cannot_act(exported):
    card = (exported / "README.md").read_text()
    assert "<script" not in card
    assert "&lt;script&gt;alert('x')&lt;/script&gt;, a\\|b \\`c\\` \\[d\\](javascript:e)" in card
    assert document(exported, "config.json")["id2label"] == {"0": exports.CLASSES[0], "1": exports.CLASSES[1]}


def test_a_study_starts_from_it(workdir, exported):
    config = ModelConfig(pretrained=str(exported))
    expected = expected_leaves(workdir, document(exported, "finetune.json")["trial"]["id"])
    shapes = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in expected.items()}
    leaves = pretrained.load(config, shapes, "head")
    assert leaves.keys() == {path for path in expected if not path.startswith("head/")}
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(leaf, expected[path])
    assert pretrained.tokenizer_file(config) == exported / "tokenizer.json"


def test_a_disk_that_fills_leaves_nothing(workdir, tmp_path, monkeypatch):
    def fill(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", fill)
    with pytest.raises(UserError, match="No space left on device, allowed: a directory that can be written"):
        export.export(workdir, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_another_trial_by_its_id(workdir, tmp_path):
    kept = [identity for identity, _ in checkpoint.kept(workdir)]
    assert len(kept) == 2
    for identity in kept:
        assert export.export(workdir, tmp_path / identity, identity).row["id"] == identity
    [gone] = [row["id"] for row in rows_of(workdir) if row["id"] not in kept][:1]
    with pytest.raises(UserError, match=f"'{gone}', whose weights were not kept, allowed: {', '.join(kept)}"):
        export.export(workdir, tmp_path / "gone", gone)
    assert not (tmp_path / "gone").exists()
