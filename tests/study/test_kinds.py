"""Studies of several labels and of numbers, from the data to the predictions of the exported model."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.datasets import load_digits

from finetune import config as settings
from finetune import predict
from finetune.analysis.table.trials import read_study
from finetune.data.dataset import load
from finetune.errors import UserError
from finetune.export.directory import export
from finetune.member import entity
from finetune.member.objective import KINDS
from finetune.study import run
from tests.helpers import studies


def test_the_table_of_tasks_in_the_readme_is_what_there_is():
    text = (Path(settings.__file__).parents[1] / "README.md").read_text()
    rows = text.partition("| task | an example |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [re.split(r"(?<!\\) ?\| ?", row)[1:-1] for row in rows]
    assert [row[0].strip("`") for row in cells] == list(KINDS) == list(settings.CHOICES["data.task"])
    for task, _, chosen, *others in cells:
        kind = KINDS[task.strip("`")]
        assert re.findall(r"`(\w+)`", chosen)[0] == kind.usual[0]
        named = {*re.findall(r"`(\w+)`", chosen), *re.findall(r"`(\w+)`", "".join(others))}
        assert named - {entity.NAME} == set(kind.metrics)


def config_of(task, metric, name="digits"):
    """Returns the config of a quick study of a kind of task."""
    config = studies.digits()
    config.data.name, config.data.task = name, task
    config.evaluation.metric = metric
    config.hparams.epochs = 2
    return config


def predicted(workdir, config, tmp_path):
    """Returns (the best trial's row, test labels, the rows that predict writes for the test split)."""
    chosen = export(workdir, tmp_path / "model")
    test = load(config.data, None).test
    np.savez(tmp_path / "new.npz", x=test["image"])
    model = predict.load(tmp_path / "model")
    names, rows = predict.read(tmp_path / "new.npz", model)
    file = io.StringIO()
    predict.write(file, model, names, predict.probabilities(model, rows))
    return chosen.row, test["label"], list(csv.DictReader(io.StringIO(file.getvalue())))


def test_a_regression_is_judged_by_the_smallest_error_in_units_of_the_target(tmp_path):
    config = config_of("regression", "rmse")
    rows = run.run(config, tmp_path / "work", {"learning_rate": [1e-4, 0.03]}).trials
    best = min(rows, key=lambda row: row["metrics"]["val_rmse"])
    row, labels, found = predicted(tmp_path / "work", config, tmp_path)
    assert row["id"] == best["id"]
    assert row["best"]["value"] == -row["metrics"]["val_rmse"]
    values = np.array([float(each["value"]) for each in found])
    error = sklearn_metrics.root_mean_squared_error(labels, values)
    assert row["metrics"]["test_rmse"] == pytest.approx(error, rel=1e-4)
    # The loss is in units of the variance of the training targets.
    variance = load(config.data, None).train["label"].var()
    assert row["metrics"]["test_loss"] == pytest.approx(error**2 / variance, rel=1e-4)
    trials = read_study(tmp_path / "work")
    assert not trials.maximize
    assert trials.frame.set_index("id")["utility"].idxmax() == best["id"]
    card = (tmp_path / "model" / "README.md").read_text()
    assert "predicts a number" in card
    with pytest.raises(UserError, match=r"label_smoothing is 0\.1, allowed for regression: 0"):
        run.run(config, tmp_path / "work", {"label_smoothing": [0.0, 0.1]})


def test_several_labels_by_micro_f1(tmp_path):
    digits = load_digits()
    y = np.stack([digits.target % 2 == 0, digits.target > 4], axis=1).astype(np.uint8)
    np.savez(tmp_path / "digits.npz", x_train=(digits.images * 15).astype(np.uint8), y_train=y)
    config = config_of("multilabel", "", str(tmp_path / "digits.npz"))
    config.evaluation.metrics = ("auc",)
    run.run(config, tmp_path / "work", {"learning_rate": [0.03], "label_smoothing": [0.0, 0.1]})
    assert studies.document(tmp_path / "work", "config.json")["config"]["evaluation"]["metric"] == "micro_f1"
    row, labels, found = predicted(tmp_path / "work", config, tmp_path)
    shares = np.array([[float(each[f"p:{name}"]) for name in "01"] for each in found])
    chosen = [[float(name in each["label"].split("|")) for name in "01"] for each in found]
    for name, value in {
        "micro_f1": sklearn_metrics.f1_score(labels, chosen, average="micro"),
        "macro_f1": sklearn_metrics.f1_score(labels, chosen, average="macro"),
        "accuracy": sklearn_metrics.accuracy_score(labels, chosen),
        "auc": sklearn_metrics.roc_auc_score(labels, shares),
        "loss": np.mean([sklearn_metrics.log_loss(labels[:, i], shares[:, i]) for i in (0, 1)]),
    }.items():
        assert row["metrics"][f"test_{name}"] == pytest.approx(value, rel=2e-3), name


def test_classes_are_weighted_and_gamma_is_an_axis_of_one_program(tmp_path):
    config = studies.digits()
    config.hparams.epochs, config.loss.class_weights = 1, ("balanced",)
    config.optimizer.name, config.hparams.learning_rate = "sgd", 0.1
    found = run.run(config, tmp_path / "work", {"focal_gamma": [0.0, 2.0]})
    assert ["focal_gamma" in row["hparams"] for row in found.trials] == [False, True]
    assert found.table()["focal_gamma"].tolist() == [0, 2]
    assert read_study(tmp_path / "work").frame.sort_values("focal_gamma")["focal_gamma"].tolist() == [0, 2]
    assert len({row["metrics"]["val_loss"] for row in found.trials}) == 2
    (group,) = studies.document(tmp_path / "work", "plan.json")["groups"]
    assert group["trials"] == 2
    described = studies.document(tmp_path / "work", "config.json")["description"]
    assert described["loss.class_weights"] == ["balanced"]


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_emphasis_is_of_one_class_an_example(tmp_path, task):
    config = config_of(task, "")
    config.loss.class_weights = ("balanced",)
    with pytest.raises(
        UserError, match="loss.class_weights is 'balanced', allowed where the loss is that of one class"
    ):
        run.run(config, tmp_path / "weights", {})
    config.loss.class_weights = ()
    with pytest.raises(UserError, match="focal_gamma is 2, allowed where the loss is that of one class"):
        run.run(config, tmp_path / "gamma", {"focal_gamma": [2.0]})
