"""Studies of pairs of texts, from a file to the predictions of the exported model."""

import csv
import io

import numpy as np
import pytest
from scipy import stats

from finetune import predict
from finetune.errors import UserError
from finetune.export.directory import export
from finetune.study import run
from tests.helpers import pairs, studies


def predicted(workdir, model, file):
    """Returns (the exported trial's row, the rows that predict writes for a file)."""
    row, read = export(workdir, model).row, predict.load(model)
    names, rows = predict.read(file, read)
    written = io.StringIO()
    predict.write(written, read, names, predict.probabilities(read, rows))
    return row, list(csv.DictReader(io.StringIO(written.getvalue())))


def test_a_study_of_pairs_and_what_its_export_predicts(tmp_path):
    header = ("premise", "hypothesis", "label")
    config = pairs.config(tmp_path, pairs.rows(60))
    (tmp_path / "data").mkdir()
    for split, found in (("train", pairs.rows(60)), ("test", pairs.rows(90)[60:])):
        pairs.write_rows(tmp_path / "data" / f"{split}.csv", header, found)
    config.data.name = str(tmp_path / "data")
    run.run(config, tmp_path / "work", {"learning_rate": [0.01, 0.03]})
    row, found = predicted(tmp_path / "work", tmp_path / "model", tmp_path / "data" / "test.csv")
    labels = [each[2] for each in pairs.rows(90)[60:]]
    right = [each["label"] == label for each, label in zip(found, labels, strict=True)]
    assert np.mean(right) == pytest.approx(row["metrics"]["test_accuracy"], abs=1e-6)
    of_label = [float(each[f"p:{label}"]) for each, label in zip(found, labels, strict=True)]
    assert -np.log(of_label).mean() == pytest.approx(row["metrics"]["test_loss"], rel=1e-4)
    # The types of tokens reach the model: it says something else of the texts the other way round.
    turned = [(b, a, label) for a, b, label in pairs.rows(90)[60:]]
    pairs.write_rows(tmp_path / "turned.jsonl", header, turned)
    model = predict.load(tmp_path / "model")
    _, rows = predict.read(tmp_path / "turned.jsonl", model)
    assert set(rows) == {"input_ids", "length", "token_type_ids"}
    plain = rows | {"token_type_ids": np.zeros_like(rows["token_type_ids"])}
    assert np.abs(predict.probabilities(model, rows) - predict.probabilities(model, plain)).max() > 1e-4
    names = studies.document(tmp_path / "model", "tokenizer_config.json")["model_input_names"]
    assert "token_type_ids" in names
    assert '[("the first text", "what stands beside it")]' in (tmp_path / "model" / "README.md").read_text()
    (tmp_path / "new.txt").write_text("good film\n")
    with pytest.raises(UserError, match=r"pairs of texts, is '\.txt', allowed: \.csv"):
        predict.read(tmp_path / "new.txt", model)


def test_a_model_of_images_takes_no_pairs(tmp_path):
    config = studies.digits()
    config.data = pairs.config(tmp_path).data
    config.data.tokenizer = str(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match="model.name is 'vit', allowed for data with input_ids, length: bert"):
        run.run(config, tmp_path / "work", {})


def test_a_regression_on_pairs_is_judged_by_correlation(tmp_path):
    header, found = ("first", "second", "score"), [(a, b, len(a) - len(b)) for a, b, _ in pairs.rows(80)]
    config = pairs.config(tmp_path)
    config.data.text_columns, config.data.label_column, config.data.task = header[:2], header[2], "regression"
    config.evaluation.metric, config.hparams.epochs, config.data.name = "pearson", 4, str(tmp_path / "data")
    (tmp_path / "data").mkdir()
    for split, part in (("train", found[:60]), ("test", found[60:])):
        pairs.write_rows(tmp_path / "data" / f"{split}.tsv", header, part)
    run.run(config, tmp_path / "work", {"learning_rate": [0.03]})
    row, told = predicted(tmp_path / "work", tmp_path / "model", tmp_path / "data" / "test.tsv")
    values, labels = [float(each["value"]) for each in told], [score for *_, score in found[60:]]
    assert row["metrics"]["test_pearson"] == pytest.approx(stats.pearsonr(labels, values).statistic, abs=1e-3)
    assert row["metrics"]["test_spearman"] == pytest.approx(stats.spearmanr(labels, values).statistic, abs=1e-3)
    assert row["best"]["value"] == row["metrics"]["val_pearson"]
