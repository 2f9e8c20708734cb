"""What is fine-tuned and on what: model, weights before training, and data, loaded once for all groups of a study."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from finetune import config as settings
from finetune import data, models
from finetune.config import Config
from finetune.data import class_weights, memory
from finetune.errors import UserError, one_of
from finetune.member.metric import LOSS, larger_is_better
from finetune.member.objective import (
    NO_OBJECTIVE,
    Objective,
    OwnObjective,
    Target,
    in_units,
    is_contrastive,
    is_of_classes,
    make_objective,
    usual_metric,
)
from finetune.member.params import abstract, count, flatten, without_state
from finetune.member.task import Task
from finetune.models import of_kind, settled
from finetune.models.weights import pretrained
from finetune.storage import files
from finetune.study import traits, user_objective, user_task
from finetune.study.traits import Traits
from finetune.trials.assignment import STATIC
from finetune.trials.grid import digest

_METHOD = 2  # of training: another number where the same settings give other results. 2: orders of examples
# Settings of JAX that change what a program computes.
_OF_JAX = ("jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable", "jax_default_matmul_precision")


class Subject(NamedTuple):
    """A task, the weights that it starts from, and the data.

    base: every parameter before training; those without pretrained weights are drawn with seed 0, and a trial that
        trains them draws its own.
    pretrained: the paths of those that have pretrained weights.
    description: all that a trial's result depends on besides its own hyperparameters.
    target: of a regression, see `objective.in_units`.
    metric: what is chosen on; larger_is_better: of it.
    class_weights: of the loss in training, float [C]; None: all 1.
    traits: of a task of the user's own; the models that come with finetune have none.
    """

    task: Task
    shapes: dict[str, jax.ShapeDtypeStruct]
    base: dict[str, np.ndarray]
    pretrained: frozenset[str]
    dataset: data.Dataset
    architecture: dict[str, Any]
    tokenizer: Path | None
    description: dict[str, Any]
    target: Target
    metric: str
    larger_is_better: bool
    traits: Traits
    class_weights: np.ndarray | None = None

    @property
    def fingerprint(self) -> str:
        """A hash of the description: trials with another one cannot be compared."""
        return digest(self.description)

    def __str__(self) -> str:
        sizes = [len(split["label"]) for split in (self.dataset.train, self.dataset.validation, self.dataset.test)]
        parameters = count(without_state(self.shapes, self.task))
        return (
            f"model: {parameters:,} parameters, {len(self.pretrained)} of {len(self.shapes)} leaves pretrained\n"
            f"data: {sizes[0]:,} training, {sizes[1]:,} validation, {sizes[2]:,} test examples, "
            f"{self._to_predict}"
        )

    @property
    def _to_predict(self) -> str:
        if self.dataset.classes:
            return f"{len(self.dataset.classes)} classes"
        if "answers" in self.dataset.train:
            return "answers to find in their texts"
        return "each to be found by its other text" if is_contrastive(self.task) else "a number to predict for each"


def load(config: Config, own_task: user_task.OwnTask | None = None, own: OwnObjective = NO_OBJECTIVE) -> Subject:
    """Returns the subject of a study; raises UserError for a model, weights or data that cannot be used.

    own_task: the user's own, or what makes it, in place of the model that the settings name. own: loss and metrics of
    the user's own for that model.
    """
    config, _ = settled.settle(config)
    architecture, tokenizer = _named(config, own) if own_task is None else ({"model": user_task.ARCHITECTURE}, None)
    types = own_task is not None or int(architecture.get("token_types", 0)) > 1
    dataset = data.load(config.data, tokenizer, types)
    _check_vocabulary(dataset, architecture)
    if own_task is None:
        task = _build(config, dataset, own)
    else:
        task = user_task.build(own_task, len(dataset.classes), _example(dataset), config.evaluation.metric)
        architecture |= _of_own(config, task, dataset)
    shapes = abstract(task)
    memory.check_fits(sum(leaf.size * leaf.dtype.itemsize for leaf in shapes.values()), "parameters of the model")
    if own_task is None:
        weights, weights_hash = pretrained.load(config.model, shapes, task.head), pretrained.content_hash(config.model)
    else:
        weights = user_task.weights(task, shapes)
        weights_hash = pretrained.leaves_hash(weights) if weights else ""
    metric, found = _metric(config, task), user_objective.find(task, own, dataset.train, config.evaluation.batch_size)
    drawn = _drawn(task, [path for path in shapes if path not in weights])
    return Subject(
        task=task,
        shapes=shapes,
        base={path: weights[path] if path in weights else drawn[path] for path in shapes},
        pretrained=frozenset(weights),
        dataset=dataset,
        architecture=architecture,
        tokenizer=files.expanded(config.data.tokenizer) if config.data.tokenizer else tokenizer,
        description=_description(config, architecture, dataset, task, weights_hash, metric) | found.described,
        target=target_of(config, dataset),
        metric=metric,
        larger_is_better=larger_is_better(task.metrics, metric),
        traits=Traits({}, found.mixed or _mixed(task)) if own_task is None else traits.find(task, dataset.train),
        class_weights=_class_weights(config, task, dataset),
    )


def _named(config: Config, own: OwnObjective) -> tuple[dict[str, Any], Path | None]:
    """Returns architecture and tokenizer of the model that the settings name."""
    architecture = models.architecture(config.model)  # first, since a misspelt name shows at once
    _objective(config, own)  # and so does a metric
    return architecture, pretrained.tokenizer_file(config.model)


def _example(dataset: data.Dataset) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of one example's arrays, without its label."""
    arrays = {name: array for name, array in dataset.train.items() if name != "label"}
    return {name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for name, array in arrays.items()}


def _of_own(config: Config, task: Task, dataset: data.Dataset) -> dict[str, Any]:
    """Returns what results depend on of a task of the user's own."""
    found: dict[str, Any] = {"program": user_task.program_hash(task, dataset.train)}
    if user_task.evaluation_mixes(task, dataset.train):
        found["evaluation.batch_size"] = config.evaluation.batch_size
    return found


def _build(config: Config, dataset: data.Dataset, own: OwnObjective) -> Task:
    """Returns the task, its outputs in the units of the labels."""
    example = _example(dataset)
    target = target_of(config, dataset)
    objective = _objective(config, own, target.scale, dataset.classes)
    task = of_kind.build(config.model, config.data.task, len(dataset.classes), example, objective)
    return in_units(task, target) if config.data.task == "regression" else task


def _objective(
    config: Config, own: OwnObjective, scale: float = 1.0, classes: Sequence[str] | None = None
) -> Objective:
    asked = config.evaluation
    return make_objective(config.data.task, asked.metric, asked.metrics, scale, classes, own)


def _metric(config: Config, task: Task) -> str:
    """Returns what is chosen on: the metric that is named, else the usual one; raises UserError if there is none."""
    name = config.evaluation.metric or usual_metric(config.data.task, task.metrics)
    if name not in (LOSS, *task.metrics):
        raise one_of("evaluation.metric", name, (LOSS, *task.metrics))
    return name


def target_of(config: Config, dataset: data.Dataset) -> Target:
    """Returns mean and standard deviation of the training targets of a regression; 0 and 1 for other tasks."""
    if config.data.task != "regression":
        return Target(0.0, 1.0)
    values = dataset.train["label"].astype(np.float64)
    return Target(float(values.mean()), float(values.std()) or 1.0)


def _mixed(task: Task) -> str:
    return "the loss looks for each example's other text among those of its batch" if is_contrastive(task) else ""


def _class_weights(config: Config, task: Task, dataset: data.Dataset) -> np.ndarray | None:
    """Returns the weights that the settings give to classes; raises UserError where the loss is of something else."""
    given = config.loss.class_weights
    if given and not is_of_classes(task):
        raise UserError(
            f"loss.class_weights is {', '.join(given)!r}, allowed where the loss is that of one class an example"
        )
    return class_weights.weights(given, dataset.train["label"], dataset.classes) if given else None


def _drawn(task: Task, paths: list[str]) -> dict[str, np.ndarray]:
    """Returns the leaves at `paths` as seed 0 draws them; the others are not computed."""

    def draw(key: jax.Array) -> dict[str, jax.Array]:
        leaves = flatten(task.init(key))
        return {path: leaves[path] for path in paths}

    return dict(jax.device_get(jax.jit(draw)(jax.random.key(0))))


def _check_vocabulary(dataset: data.Dataset, architecture: dict[str, Any]) -> None:
    tokens = architecture.get("vocabulary")
    largest = max((int(split["input_ids"].max()) for split in dataset[:3] if "input_ids" in split), default=0)
    if tokens is not None and largest >= tokens:
        raise UserError(f"data.tokenizer gives token {largest}, allowed: below the model's vocabulary of {tokens}")


def _description(
    config: Config, architecture: dict[str, Any], dataset: data.Dataset, task: Task, weights_hash: str, metric: str
) -> dict[str, Any]:
    """Returns what results depend on: a setting by its name, unless it is of no result or told by what it stands for.

    A setting that is new is told unless it is named here or in `settings.OF_NO_RESULT`.
    """
    defaults = dict(settings.fields(Config()))
    told = {
        name: _listed(value)
        for name, value in settings.fields(config)
        if not _is_told_otherwise(name) and not (name in settings.LATER and _listed(value) == _listed(defaults[name]))
    }
    return {
        "data": dataset.content_hash,
        "weights": weights_hash,
        "architecture": architecture,
        "metric": metric,
        "metrics": sorted(task.metrics),
        **told,
        **({"evaluation.batch_size": config.evaluation.batch_size} if is_contrastive(task) else {}),
        **{name: getattr(jax.config, name) for name in _OF_JAX},
        "method": _METHOD,
    }


def _is_told_otherwise(name: str) -> bool:
    """Says whether a setting is of no result, or the description or a trial holds what it stands for."""
    in_a_trial = name.startswith("hparams.") or name in STATIC.values()
    in_the_data = name.startswith("data.") and name != "data.task"
    in_the_model = name.startswith("model.") and name not in ("model.dtype", "model.dropout_at", "model.pooling")
    is_resolved = name in ("evaluation.metric", "evaluation.metrics")
    return in_a_trial or in_the_data or in_the_model or is_resolved or name in settings.OF_NO_RESULT


def _listed(value: Any) -> Any:
    """Returns a setting as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
