"""Response surfaces over a grid whose shares of the variance are known by construction, and studies of them."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.table.trials import Trials, from_frame

AXES = {
    "learning_rate": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    "weight_decay": (0.0, 0.01, 0.1),
    "batch_size": (8, 32, 128),
}
RATE, DECAY, BATCH = AXES
NOISE, REST = (), ("*",)


class Surface(NamedTuple):
    """The mean utility of each setting, the standard deviation of chance there, and the true shares."""

    means: np.ndarray  # [learning rates, weight decays, batch sizes]
    deviation: np.ndarray
    shares: dict[tuple[str, ...], float]


def contrast(name: str) -> np.ndarray:
    """Returns numbers along an axis, of mean 0 and mean square 1, shaped to be multiplied with those of other axes."""
    x = {RATE: [-3.0, 0, 2, 1, 0], DECAY: [-1.0, 1, 0], BATCH: [1.0, 0, -1]}[name]
    shape = [len(values) if axis == name else 1 for axis, values in AXES.items()]
    return (np.array(x) / np.sqrt(np.mean(np.square(x)))).reshape(shape)


def of_shares(shares: dict[tuple[str, ...], float]) -> Surface:
    """Returns the surface of variance 1 in which each term has the given share: products of contrasts, scaled."""
    means = np.zeros([len(values) for values in AXES.values()])
    for terms, share in shares.items():
        if terms != NOISE:
            names = list(AXES) if terms == REST else terms
            means = means + np.sqrt(share) * np.prod(np.broadcast_arrays(*map(contrast, names), means)[:-1], axis=0)
    absent = [(a,) for a in AXES] + [(RATE, DECAY), (RATE, BATCH), (DECAY, BATCH), REST]
    return Surface(means, np.full(means.shape, np.sqrt(shares[NOISE])), {**dict.fromkeys(absent, 0.0), **shares})


def two_regimes() -> Surface:
    """Returns a surface that falls off a cliff for the two largest rates with the smallest batch, noisier down there.

    With indicators of probability p and q for rate and batch, the cliff of height h has variance h²·q²·p(1−p) in the
    rate, h²·p²·q(1−q) in the batch, and h²·p(1−p)·q(1−q) in the two together; weight decay has variance 1 beside it.
    """
    p, q, height, chance = 2 / 5, 1 / 3, 4.0, 0.5
    cliff = np.zeros([len(values) for values in AXES.values()])
    cliff[3:, :, 0] = 1.0
    deviation = np.sqrt(chance) * np.where(cliff, 1.5, 1.0)
    variance = {
        (RATE,): height**2 * q**2 * p * (1 - p),
        (BATCH,): height**2 * p**2 * q * (1 - q),
        (RATE, BATCH): height**2 * p * (1 - p) * q * (1 - q),
        (DECAY,): 1.0,
        NOISE: chance * (1 + p * q * (1.5**2 - 1)),
    }
    total = sum(variance.values())
    absent = dict.fromkeys([(RATE, DECAY), (DECAY, BATCH), REST], 0.0)
    shares = absent | {terms: each / total for terms, each in variance.items()}
    return Surface(contrast(DECAY) - height * cliff, deviation, shares)


SURFACES = {
    "additive": of_shares({(RATE,): 0.5, (DECAY,): 0.2, (BATCH,): 0.1, NOISE: 0.2}),
    "interacting": of_shares({(RATE,): 0.4, (DECAY,): 0.1, (RATE, BATCH): 0.3, REST: 0.05, NOISE: 0.15}),
    "noisy": of_shares({(RATE,): 0.2, (DECAY,): 0.05, NOISE: 0.75}),
    "two regimes": two_regimes(),
    "noise": of_shares({NOISE: 1.0}),
}


def cubes(surface: Surface, studies: int, seeds: int, seed: int = 0) -> np.ndarray:
    """Returns simulated utilities [studies, learning rates, weight decays, batch sizes, seeds]."""
    normal = np.random.default_rng(seed).normal(size=(studies, *surface.means.shape, seeds))
    return surface.means[..., None] + surface.deviation[..., None] * normal


def trials(cube: np.ndarray, minimize: bool = False) -> Trials:
    """Returns a study with the utilities `cube` [learning rates, weight decays, batch sizes, seeds]."""
    index = pd.MultiIndex.from_product([*AXES.values(), range(cube.shape[-1])], names=[*AXES, "seed"])
    frame = pd.DataFrame({"val_accuracy": (-cube if minimize else cube).ravel()}, index).reset_index()
    return from_frame(frame, "val_accuracy", minimize, hyperparameters=list(AXES))
