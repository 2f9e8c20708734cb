"""A loss and metrics of the user's own for a model that finetune knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune import Config, Metric
from finetune.errors import UserError
from finetune.study import config_file, problem, run, user_objective
from finetune.study.plan import group_trials
from finetune.trials.grid import make_trials
from tests.helpers import studies


def cross_entropy(outputs, batch, label_smoothing):
    return -(jax.nn.one_hot(batch["label"], 10) * jnp.log(jax.nn.softmax(outputs))).sum(axis=1)


def against_the_mean(outputs, batch, label_smoothing):
    return jnp.square(outputs - outputs.mean(axis=0, keepdims=True)).sum(axis=1)


def right(outputs, batch):
    return (outputs.argmax(axis=1) == batch["label"]).astype(outputs.dtype)


def share_of_zeros(outputs, labels, weight):
    return ((outputs.argmax(axis=1) == 0) * weight).sum() / weight.sum()


METRICS = {"right": right, "zeros": Metric(share_of_zeros, of_split=True, larger_is_better=False)}


def described(**given):
    return problem.load(studies.digits(), None, user_objective.checked(given.get("loss"), given.get("metrics"), False))


def test_a_loss_that_is_the_usual_one_trains_the_same(tmp_path):
    config, grid = studies.digits(), {"learning_rate": [0.03]}
    config.hparams.epochs = 1
    usual = run.run(config, tmp_path / "usual", grid).trials[0]
    config.evaluation.metric = "right"
    own = run.run(config, tmp_path / "own", grid, loss=cross_entropy, metrics=METRICS).trials[0]
    assert own["id"] != usual["id"]
    assert own["metrics"]["val_right"] == own["metrics"]["val_accuracy"] == usual["metrics"]["val_accuracy"]
    for name in ("train_loss", "val_loss", "test_loss"):
        assert own["metrics"][name] == pytest.approx(usual["metrics"][name], rel=1e-5)
    assert 0 <= own["metrics"]["test_zeros"] <= 1
    assert own["best"]["value"] == own["metrics"]["val_right"]


def test_trials_are_called_by_what_the_functions_compute():
    def doubled(outputs, batch, label_smoothing):
        return 2 * cross_entropy(outputs, batch, label_smoothing)

    def again(outputs, batch, smoothing):  # in other words the same
        found = jnp.log(jax.nn.softmax(outputs))
        return -(jax.nn.one_hot(batch["label"], 10) * found).sum(axis=1)

    plain, own, same, other = (described(loss=each) for each in (None, cross_entropy, again, doubled))
    metric = described(metrics=METRICS)
    assert "objective" not in plain.description
    assert own.fingerprint == same.fingerprint
    assert len({each.fingerprint for each in (plain, own, other, metric)}) == 4
    assert "evaluation.batch_size" not in own.description


def test_batch_sizes_train_apart_where_a_loss_mixes_examples():
    subject = described(loss=against_the_mean)
    assert "reduce_sum" in subject.traits.mixed
    assert subject.description["evaluation.batch_size"] == 128
    trials = make_trials(studies.digits(), {"batch_size": [8, 16]})
    assert len(group_trials(trials, subject.task, subject.shapes, {}, subject.traits.mixed)) == 2
    assert "each batch size trains apart" in subject.traits.lines(trials)[-1]
    assert described(loss=cross_entropy).traits.mixed == ""


@pytest.mark.parametrize(
    "given, message",
    [
        ({"loss": "mse"}, "loss is 'mse', allowed: a function, loss"),
        (
            {"loss": lambda outputs, batch, smoothing: outputs.mean()},
            r"gives float32 \[\] for 2 examples, allowed: a number",
        ),
        ({"loss": lambda outputs, batch: outputs}, "TypeError.*takes 2 positional arguments"),
        ({"metrics": {"loss": right}}, "metrics holds 'loss'.*, allowed: a name other than loss"),
        (
            {"metrics": {"accuracy": right}},
            "metrics holds 'accuracy', which classification has itself, allowed: another",
        ),
        ({"metrics": [right]}, "metrics is .*, allowed: a dict of functions"),
        ({"metrics": {"zeros": share_of_zeros}}, "metric 'zeros' of outputs, batch: TypeError"),
        ({"metrics": {"zeros": Metric(right, of_split=True)}}, "metric 'zeros' of outputs, labels, weight: TypeError"),
    ],
)
def test_what_is_no_objective_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        described(**given)


def test_a_task_of_ones_own_has_its_own_objective(tmp_path):
    with pytest.raises(UserError, match="both task and loss or metrics are given"):
        run.run(Config(), tmp_path, task=np.zeros, loss=cross_entropy)


def test_a_config_file_defines_them(tmp_path):
    (tmp_path / "own.py").write_text(
        "from finetune import Config\n"
        "def get_config():\n    return Config()\n"
        "def loss(outputs, batch, label_smoothing):\n    return outputs[:, 0]\n"
    )
    own = config_file.read(tmp_path / "own.py", "").own
    assert (set(own), own["task"], own["loss"].__name__) == ({"task", "loss"}, None, "loss")
