"""What a model of the user's own brings that changes how its trials train, found by tracing it: nothing is declared.

rates: its dropout layers have rates of their own, which hold for trials whose dropout is not set.
mixed: where the examples of a batch influence each other in training, as by statistics or random numbers of a batch
that a model takes by itself, what a trial computes depends on the batch. Its batches are then computed whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from finetune.errors import UserError
from finetune.jaxpr.batch_axis import SIZES, mixed
from finetune.jaxpr.program import Program, trace
from finetune.member.params import abstract
from finetune.member.precision import widened
from finetune.member.step import seed_key, training_forward
from finetune.member.task import Task
from finetune.models.adapters.forward_pass import found_rates
from finetune.trials.grid import Trial
from finetune.trials.hparams import OWN_RATES

_SHOWN = 3  # dropout layers that a line names


class Traits(NamedTuple):
    """rates: {path: rate} of the dropout layers that were built with one above 0; mixed: why, or ""."""

    rates: Mapping[str, float]
    mixed: str

    def resolved(self, trials: Sequence[Trial]) -> list[Trial]:
        """Returns trials whose dropout is not set with that of a model that has no rates of its own: 0.

        Raises UserError for an axis that asks for rates which the model does not have, or with which nothing is left.
        """
        unset = [trial.hparams["dropout"] == OWN_RATES for trial in trials]
        if not any(unset):
            return list(trials)
        for path, rate in self.rates.items():
            if not 0 <= rate < 1:
                raise UserError(f"the dropout layer {path!r} was built with rate {rate:g}, allowed: 0 <= value < 1")
        if self.rates:
            return list(trials)
        if not all(unset):
            raise UserError(f"dropout is {OWN_RATES:g}, allowed for a model without dropout layers: 0 <= value < 1")
        return [Trial({**trial.hparams, "dropout": 0.0}, trial.choices) for trial in trials]

    def lines(self, trials: Sequence[Trial]) -> list[str]:
        """Returns what the user should know of them."""
        told, given = [], {trial.hparams["dropout"] for trial in trials}
        if self.rates:
            places = [f"{rate:g} at {path}" for path, rate in list(self.rates.items())[:_SHOWN]]
            where = ", ".join([*places, *[f"{len(self.rates) - _SHOWN} more"] * (len(self.rates) > _SHOWN)])
            if given == {OWN_RATES}:
                told.append(f"dropout: as the model was built, {where}; --grid=dropout=0,0.1 takes the place of these")
            else:
                kept = f", -1 keeps {'them' if len(self.rates) > 1 else 'it'}" * (OWN_RATES in given)
                told.append(f"dropout: the trial's takes the place of what the model was built with, {where}{kept}")
        if self.mixed and len({trial.hparams["batch_size"] for trial in trials}) > 1:
            told.append(f"each batch size trains apart, since {self.mixed}")
        return told


NONE = Traits({}, "")


def find(task: Task, split: Mapping[str, np.ndarray]) -> Traits:
    """Returns the traits of a task that trains on batches of `split`; running averages stay as they are."""
    forward = training_forward(task, ())

    def losses(leaves: Any, batch: Any, scalar: jax.Array, keys: jax.Array) -> Any:
        return widened(task.loss(forward(leaves, {}, batch, scalar, keys), batch, scalar))

    with found_rates() as rates:
        two, paths = _traced(task, losses, split, SIZES[0])
    three, _ = _traced(task, losses, split, SIZES[1])
    inputs = [0 if path[0].idx in (1, 3) else None for path in paths]
    return Traits(rates, mixed(two, three, inputs))


def _traced(task: Task, losses: Any, split: Mapping[str, np.ndarray], size: int) -> tuple[Program, list[Any]]:
    """Returns the program for a batch of `size` examples, and the paths of its inputs in the arguments."""
    batch = {name: jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype) for name, array in split.items()}
    batch["weight"] = jax.ShapeDtypeStruct((size,), np.float32)
    scalar = jax.ShapeDtypeStruct((), jnp.zeros(()).dtype)
    keys = jax.ShapeDtypeStruct((size,), jax.eval_shape(seed_key, 0, 0).dtype)
    arguments = abstract(task), batch, scalar, keys
    program, _ = trace(losses, *arguments)
    return program, [path for path, _ in jax.tree_util.tree_leaves_with_path(arguments)]
