"""Studies of examples of several texts, from a file to the predictions of the exported model."""

import csv

import numpy as np
import pytest

from finetune import predict
from finetune.data import answer_spans
from finetune.errors import UserError
from finetune.export.directory import export
from finetune.study import run
from tests.helpers import pairs, studies
from tests.member.test_span import by_script
from tests.study.test_pairs import predicted


def data_of(directory, header, found):
    (directory / "data").mkdir()
    for split, part in (("train", found[:60]), ("test", found[60:])):
        pairs.write_rows(directory / "data" / f"{split}.csv", header, part)
    return str(directory / "data")


def test_texts_that_belong_together(tmp_path):
    config = pairs.config(tmp_path)
    header, found = ("first", "second"), [(a, f"{a} {b}") for a, b, _ in pairs.rows(80)]
    config.data.name, config.data.text_columns = data_of(tmp_path, header, found), header
    config.data.task, config.data.label_column, config.trainable = "contrastive", "none", "head"
    results = run.run(config, tmp_path / "work", {"temperature": [0.05, 0.2], "batch_size": [8, 16]})
    plan = studies.document(tmp_path / "work", "plan.json")["groups"]
    assert sorted((group["trials"], group["signature"]["micro_batch"], group["trunk"]) for group in plan) == [
        (2, 8, "cached"), (2, 16, "cached")
    ]  # fmt: skip
    assert len({row["metrics"]["val_loss"] for row in results.trials}) == 4
    description = studies.document(tmp_path / "work", "config.json")["description"]
    assert description["evaluation.batch_size"] == 128
    row, told = predicted(tmp_path / "work", tmp_path / "model", tmp_path / "data" / "test.csv")
    assert set(told[0]) == {"row", "value"}
    assert all(-1 <= float(each["value"]) <= 1 for each in told)
    model = predict.load(tmp_path / "model")
    _, rows = predict.read(tmp_path / "data" / "test.csv", model)
    assert rows["input_ids"].ndim == 3
    # Of all 20 texts against all 20: how many find their own.
    every = {name: np.repeat(array, 20, axis=0) for name, array in rows.items()}
    for name, array in rows.items():
        every[name][:, 1] = np.tile(array[:, 1], (20, *[1] * (array.ndim - 2)))
    similar = predict.probabilities(model, every).reshape(20, 20)
    own = np.diagonal(similar)[:, None]
    same = (abs(similar - own) < 1e-6).sum(axis=1)
    found = ((similar > own + 1e-6).sum(axis=1) == 0) / same
    assert row["metrics"]["test_accuracy"] == pytest.approx(found.mean(), abs=1e-6)
    with pytest.raises(UserError, match="seed is 0, 1, which changes nothing without dropout or lora"):
        run.run(config, tmp_path / "other", {}, seeds=2)
    config.hparams.label_smoothing = 0.1
    with pytest.raises(UserError, match="label_smoothing is 0.1, allowed for contrastive: 0"):
        run.run(config, tmp_path / "other", {})


def test_a_choice_of_several_texts(tmp_path):
    config = pairs.config(tmp_path)
    header = ("first", "a", "b", "c", "label")
    random, found = np.random.default_rng(3), []
    for first, other, _ in pairs.rows(80):
        place = int(random.integers(3))
        choices = [other, other, other]
        choices[place] = first
        found.append((first, *choices, place if place else "a"))
    config.data.name, config.data.text_columns, config.data.task = (
        data_of(tmp_path, header, found),
        header[:4],
        "choice",
    )
    run.run(config, tmp_path / "work", {"focal_gamma": [0.0, 1.0]})
    row, told = predicted(tmp_path / "work", tmp_path / "model", tmp_path / "data" / "test.csv")
    labels = ["abc"[label] if label != "a" else "a" for *_, label in found[60:]]
    right = [each["label"] == label for each, label in zip(told, labels, strict=True)]
    assert np.mean(right) == pytest.approx(row["metrics"]["test_accuracy"], abs=1e-6)
    of_label = [float(each[f"p:{label}"]) for each, label in zip(told, labels, strict=True)]
    assert -np.log(of_label).mean() == pytest.approx(row["metrics"]["test_loss"], rel=1e-4)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "which of 3 texts goes with a first one: a, b, c" in card
    pairs.write_rows(tmp_path / "data" / "train.csv", header, [*found[:60], ("x", "a", "b", "c", "d")])
    with pytest.raises(UserError, match="label of split train is 'd', allowed: 0, 1, 2, a, b, c"):
        run.run(config, tmp_path / "other", {})


def test_answers_to_questions(tmp_path):
    config = pairs.config(tmp_path)
    header, found = ("question", "context", "answers"), []
    for number, (first, other, _) in enumerate(pairs.rows(80)):
        answer = first.split()[-1] if number % 2 else first
        found.append(
            (answer, f"{first}, {other}", {"text": [answer, other], "answer_start": [first.rindex(answer), -1]})
        )
    (tmp_path / "data").mkdir()
    for split, part in (("train", found[:60]), ("test", found[60:])):
        pairs.write_rows(tmp_path / "data" / f"{split}.jsonl", header, part)
    config.data.name, config.data.text_columns, config.data.label_column = str(tmp_path / "data"), header[:2], header[2]
    config.data.task, config.data.max_length = "question_answering", 12
    run.run(config, tmp_path / "work", {"learning_rate": [0.03]})
    row, told = exported(tmp_path)
    assert [each["row"] for each in told] == [str(line) for line in range(1, 21)]
    scores = [by_script(each["answer"], answers_of(field)) for each, (*_, field) in zip(told, found[60:], strict=True)]
    for place, name in enumerate(("exact_match", "f1")):
        assert row["metrics"][f"test_{name}"] == pytest.approx(np.mean([each[place] for each in scores]), abs=1e-6)
    assert all(0 < float(each["p"]) <= 1 for each in told)
    assert row["best"]["value"] == row["metrics"]["val_f1"]
    assert "It answers a question by words of a text" in (tmp_path / "model" / "README.md").read_text()


def answers_of(field):
    return [answer_spans.Answer(text, -1) for text in field["text"]]


def exported(directory):
    """Returns the row of the exported trial, and what predict's command writes for the test split."""
    row = export(directory / "work", directory / "model").row
    file, to = directory / "data" / "test.jsonl", directory / "told.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["predict", str(directory / "model"), str(file), f"--to={to}"])
        predict.main()
    with to.open(newline="") as stream:
        return row, list(csv.DictReader(stream))
