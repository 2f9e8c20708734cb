"""The Optax chain of one member, built from traced hyperparameters, and its unit schedules.

    g ← clip(g);  p ← p − s(t)·learning_rate·(direction(g) + weight_decay·p)

where s(t) in [0, 1] is the unit schedule and direction is Adam's, SGD's with momentum, or Lion's. As in optax.adamw
and PyTorch, decay is multiplied by the learning rate; with `decay_coupling = "independent"` it is s(t)·weight_decay·p
(Loshchilov and Hutter 2019, algorithm 2). The learning rate of a leaf is multiplied by its factor, `rate_factors`.
"""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import optax

from finetune.config import OptimizerConfig
from finetune.member import lora
from finetune.member.rates import Rates
from finetune.trials.hparams import Hparams


def unit_schedule(name: str, update: jax.Array, total: jax.Array, warmup_fraction: jax.Array) -> jax.Array:
    """Returns the factor of the learning rate at `update` (0-based) of `total`, a scalar in [0, 1].

    Warm-up: (update + 1) / (warmup_fraction·total), until 1. Then, with x in [0, 1) the share of the rest that is
    done: constant 1, linear 1 − x, cosine (1 + cos πx) / 2.
    """
    warmup = warmup_fraction * total
    rise = jnp.minimum(1.0, (update + 1) / jnp.maximum(warmup, 1.0))
    share = jnp.clip((update - warmup) / jnp.maximum(total - warmup, 1.0), 0.0, 1.0)
    fall = {"constant": jnp.ones_like(share), "linear": 1 - share, "cosine": (1 + jnp.cos(jnp.pi * share)) / 2}[name]
    return rise * fall


def rate_factors(hparams: Hparams, rates: Rates, paths: Iterable[str]) -> dict[str, jax.Array]:
    """Returns by what the learning rate of each path is multiplied, scalars; a path that is left out has 1.

    multiplier·layer_decay**depth, where the head has depth 0 and each layer below it one more (Clark et al. 2020,
    ELECTRA, appendix A), and the ratio of LoRA+.
    """
    one = jnp.ones_like(hparams.layer_decay)
    factors = {path: multiplier * one for path, multiplier in rates.multipliers.items()}
    for path, depth in rates.depths.items():
        factors[path] = factors.get(path, one) * hparams.layer_decay**depth
    for path, ratio in lora.rate_factors(hparams, paths).items():
        factors[path] = factors.get(path, one) * ratio
    return factors


def _scale_by_rate(rate: jax.Array, factors: Mapping[str, jax.Array]) -> optax.GradientTransformation:
    if not factors:
        return optax.scale(rate)
    return optax.stateless(
        lambda changes, _: {path: rate * factors.get(path, 1) * change for path, change in changes.items()}
    )


def make_optimizer(
    config: OptimizerConfig,
    hparams: Hparams,
    scale: jax.Array,
    decayed: dict[str, bool],
    factors: Mapping[str, jax.Array] | None = None,
) -> optax.GradientTransformation:
    """Returns the update rule of one member, for leaves by path.

    `scale` is its s(t), `decayed` says of each path whether it decays, and `factors` is what `rate_factors` returns.
    """
    direction = {
        "adamw": lambda: optax.scale_by_adam(hparams.beta1, hparams.beta2, config.epsilon),
        "sgd": lambda: optax.trace(hparams.momentum),
        "lion": lambda: optax.scale_by_lion(hparams.beta1, hparams.beta2),
    }[config.name]()
    clip = optax.clip_by_global_norm(jnp.where(hparams.clip_norm > 0, hparams.clip_norm, jnp.inf))
    rate = _scale_by_rate(-scale * hparams.learning_rate, factors or {})
    if config.decay_coupling == "independent":
        decay = optax.add_decayed_weights(-scale * hparams.weight_decay, decayed)
        return optax.chain(clip, direction, rate, decay)
    return optax.chain(clip, direction, optax.add_decayed_weights(hparams.weight_decay, decayed), rate)
