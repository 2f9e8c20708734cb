"""The trivial predictor against scikit-learn's, and in the summary of a study."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import dummy
from sklearn import metrics as sklearn_metrics

from finetune.data.dataset import Dataset
from finetune.member import entity
from finetune.member.objective import classification, make_objective
from finetune.member.task import Task
from finetune.study import run
from finetune.study.baseline import baseline
from tests.helpers import studies, tasks

SIZES = (60, 40, 30)


def judged(kind: str, labels: list[np.ndarray], classes: tuple[str, ...], others: tuple[str, ...], scale: float = 1.0):
    """Returns the baseline of a kind of task with these labels of train, validation and test."""
    objective = make_objective(kind, "", others, scale, classes)
    task = tasks.mlp()._replace(loss=objective.loss, metrics=objective.metrics)
    splits = [{"x": np.zeros((len(each), 2), np.float32), "label": each} for each in labels]
    return baseline(kind, task, Dataset(*splits, classes, ""))


def drawn(draw: Any) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [draw(random, size) for size in SIZES]


def check(found: dict[str, float], wanted: dict[str, dict[str, float]]) -> None:
    assert found == pytest.approx(
        {f"{split}_{name}": value for split, each in wanted.items() for name, value in each.items()}, rel=1e-5, abs=1e-6
    )


def test_classes() -> None:
    labels = drawn(lambda random, size: random.choice(3, size, p=[0.2, 0.5, 0.3]).astype(np.int32))
    nothing = [np.zeros((size, 1)) for size in SIZES]
    most = dummy.DummyClassifier(strategy="most_frequent").fit(nothing[0], labels[0])
    prior = dummy.DummyClassifier(strategy="prior").fit(nothing[0], labels[0])
    wanted = {}
    for name, x, y in zip(("val", "test"), nothing[1:], labels[1:], strict=True):
        wanted[name] = {
            "accuracy": most.score(x, y),
            "macro_f1": sklearn_metrics.f1_score(y, most.predict(x), average="macro", zero_division=0),
            "matthews": 0.0,
            "auc": sklearn_metrics.roc_auc_score(y, prior.predict_proba(x), multi_class="ovr"),
            "loss": sklearn_metrics.log_loss(y, prior.predict_proba(x)),
        }
    found = judged("classification", labels, ("a", "b", "c"), ("macro_f1", "matthews", "auc"))
    check(found, wanted)
    assert wanted["val"]["auc"] == 0.5


def test_several_labels() -> None:
    labels = drawn(lambda random, size: (random.random((size, 4)) < [0.1, 0.7, 0.4, 0.02]).astype(np.float32))
    nothing = [np.zeros((size, 1)) for size in SIZES]
    most = dummy.DummyClassifier(strategy="most_frequent").fit(nothing[0], labels[0])
    shares = labels[0].mean(axis=0)
    assert 0 < shares.min() < 1
    wanted = {}
    for name, x, y in zip(("val", "test"), nothing[1:], labels[1:], strict=True):
        found = most.predict(x)
        wanted[name] = {
            "accuracy": sklearn_metrics.accuracy_score(y, found),
            "micro_f1": sklearn_metrics.f1_score(y, found, average="micro"),
            "macro_f1": sklearn_metrics.f1_score(y, found, average="macro", zero_division=0),
            "loss": -(y * np.log(shares) + (1 - y) * np.log(1 - shares)).mean(),
        }
    check(judged("multilabel", labels, tuple("abcd"), ()), wanted)


def test_nothing_is_predicted_where_no_label_is_in_half_of_the_examples() -> None:
    labels = drawn(lambda random, size: (random.random((size, 2)) < [0.2, 0.0]).astype(np.float32))
    found = judged("multilabel", labels, ("a", "b"), ())
    assert found["val_micro_f1"] == 0
    assert found["val_accuracy"] == pytest.approx((labels[1].sum(axis=1) == 0).mean())
    assert np.isfinite(found["val_loss"])  # although no example of train has the second


def test_numbers() -> None:
    labels = drawn(lambda random, size: random.normal(50, 4, size).astype(np.float32))
    mean = dummy.DummyRegressor(strategy="mean").fit(np.zeros((60, 1)), labels[0]).predict(np.zeros((1, 1)))[0]
    scale = float(labels[0].std())
    wanted = {}
    for name, y in zip(("val", "test"), labels[1:], strict=True):
        error = sklearn_metrics.root_mean_squared_error(y, np.full(len(y), mean))
        wanted[name] = {"rmse": error, "spearman": 0.0, "loss": (error / scale) ** 2}
    check(judged("regression", labels, (), (), scale), wanted)


def test_tags() -> None:
    labels = drawn(lambda random, size: random.choice([-1, 0, 1, 2], (size, 5), p=[0.2, 0.1, 0.1, 0.6]))
    labels = [each.astype(np.int32) for each in labels]
    shares = np.bincount(labels[0][labels[0] >= 0]) / (labels[0] >= 0).sum()
    wanted = {}
    for name, y in zip(("val", "test"), labels[1:], strict=True):
        words = y >= 0
        losses = np.where(words, -np.log(shares[np.maximum(y, 0)]), 0).sum(axis=1) / np.maximum(words.sum(axis=1), 1)
        wanted[name] = {
            "accuracy": (y[words] == 2).mean(),
            "macro_f1": sklearn_metrics.f1_score(y[words], np.full(words.sum(), 2), average="macro", zero_division=0),
            "entity_f1": 0.0,
            "loss": losses.mean(),
        }
    found = judged("tokens", labels, ("B-a", "I-a", "O"), (entity.NAME,))
    check(found, wanted)


def test_a_loss_of_the_users_own_has_none() -> None:
    task: Task = tasks.mlp()._replace(loss=lambda outputs, batch, smoothing: jnp.abs(outputs[:, 0]))
    split = {"x": np.zeros((4, 2), np.float32), "label": np.array([0, 1, 1, 1], np.int32)}
    assert baseline("classification", task, Dataset(split, split, split, ("a", "b"), "")) == {}
    theirs = tasks.mlp()._replace(loss=classification().loss)
    found = baseline("classification", theirs, Dataset(split, split, split, ("a", "b"), ""))
    assert found == pytest.approx({f"{name}_accuracy": 0.75 for name in ("val", "test")} | {
        f"{name}_loss": -0.75 * np.log(0.75) - 0.25 * np.log(0.25) for name in ("val", "test")
    })  # fmt: skip


def test_metrics_of_the_users_own_are_judged_where_they_can_be() -> None:
    split = {"x": np.zeros((4, 2), np.float32), "label": np.array([0, 1, 1, 1], np.int32)}
    data = Dataset(split, split, split, ("a", "b"), "")
    task = tasks.mlp()._replace(loss=classification().loss)
    weighed = task._replace(
        metrics={"margin": lambda outputs, batch: (outputs[:, 1] - outputs[:, 0]) * batch["weight"]}
    )
    assert baseline("classification", weighed, data)["val_margin"] == pytest.approx(np.log(3), rel=1e-6)
    assert baseline("classification", task._replace(metrics={"no": lambda outputs, batch: batch["gone"]}), data) == {}


def test_it_is_in_the_summary_of_a_study(tmp_path) -> None:
    config = studies.digits()
    config.hparams.epochs = 1
    run.run(config, tmp_path)
    found = studies.document(tmp_path, "summary.json")["baseline"]
    [row] = studies.rows_of(tmp_path)
    assert found.keys() == {"val_loss", "val_accuracy", "test_loss", "test_accuracy"} <= row["metrics"].keys()
    # Ten digits, alike in number: no class is frequent, and the share of each is near a tenth.
    assert 0.05 < found["test_accuracy"] < 0.2
    assert found["test_loss"] == pytest.approx(np.log(10), rel=0.05)
