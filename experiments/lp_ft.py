"""Does training the head first, and then all from the best head, help on the test set, and on one that has shifted?

    python experiments/lp_ft.py

Kumar et al. 2022 find that a random head distorts pretrained features while all of the model trains, so that linear
probing and then fine-tuning (LP-FT) beats both out of distribution. To expect: what is found here, each arm at its own
best rate, chosen on the validation split as it is; figures/lp_ft.svg.
"""

from pathlib import Path

import altair
import answers
import jax
import numpy as np
import pandas as pd
import subjects
from absl import app
from scipy import ndimage

from finetune.analysis.table.trials import Trials
from finetune.member.params import unflatten
from finetune.report import theme
from finetune.storage import checkpoint
from finetune.study import problem
from finetune.study.problem import Subject

_ARMS = ["head", "all", "head>all"]
_RATES = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
_NOISE = 64  # standard deviation, of 255 levels
_DEGREES = 20


def shifted(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the test images [N, H, W, 1] uint8 as they are, and shifted in ways that keep what they show."""
    noise = np.random.default_rng(0).normal(0, _NOISE, images.shape)
    turned = ndimage.rotate(images.astype(float), _DEGREES, axes=(1, 2), reshape=False, order=1)
    moved = np.pad(images, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
    changed = {"noise": images + noise, "turned by 20 degrees": turned, "moved by a pixel": moved}
    return {"as it is": images} | {
        name: np.clip(np.rint(pixels), 0, 255).astype(np.uint8) for name, pixels in changed.items()
    }


def best_rates(trials: Trials) -> dict[str, float]:
    """Returns the learning rate of each arm with the best mean over seeds on the validation split."""
    settings = trials.settings()
    return {arm: float(settings[settings["trainable"] == arm]["learning_rate"].iloc[0]) for arm in _ARMS}


def accuracies(directory: Path, loaded: Subject, trials: Trials, rates: dict[str, float]) -> pd.DataFrame:
    """Returns arm, seed, set, accuracy: of the weights at the best epoch of each arm's trials at its best rate."""
    sets, labels = shifted(loaded.dataset.test["image"]), loaded.dataset.test["label"]
    base = checkpoint.load(directory / "checkpoints" / "base")
    classify = jax.jit(lambda params, images: loaded.task.apply(params, {"image": images}, 0.0, None).argmax(-1))
    rows = []
    for trial in trials.frame.itertuples():
        if trial.learning_rate != rates[trial.trainable]:
            continue
        params = unflatten({**base, **checkpoint.load(directory / "checkpoints" / "trials" / trial.id / "best")})
        for name, images in sets.items():
            right = np.mean(np.asarray(classify(params, images)) == labels)
            rows.append({"arm": trial.trainable, "seed": trial.seed, "set": name, "accuracy": float(right)})
    return pd.DataFrame(rows)


def intervals(found: pd.DataFrame) -> pd.DataFrame:
    """Returns set, arm, and mean, low, high: its accuracy; gain, gain_low, gain_high: over all, paired by seed."""
    rows = []
    for name, part in found.groupby("set", sort=False):
        by_seed = part.pivot(index="seed", columns="arm", values="accuracy")
        for arm in _ARMS:
            own = answers.interval(by_seed[arm].to_numpy())
            gain = answers.interval((by_seed[arm] - by_seed["all"]).to_numpy())
            names = ("mean", "low", "high", "gain", "gain_low", "gain_high")
            rows.append({"set": name, "arm": arm, **dict(zip(names, (*own, *gain), strict=True))})
    return pd.DataFrame(rows)


def sentences(table: pd.DataFrame) -> list[str]:
    """Returns one line for each test set and arm."""
    said = []
    for row in table.itertuples():
        of_all = (
            "" if row.arm == "all" else f", {answers.words((row.gain, row.gain_low, row.gain_high), '+.3f')} to all"
        )
        said.append(f"test set {row.set}, {row.arm}: {answers.words((row.mean, row.low, row.high))}{of_all}")
    return said


def chart(table: pd.DataFrame) -> altair.FacetChart:
    """Returns a panel for each test set: accuracy of the arms with 95 % intervals."""
    colours = altair.Scale(domain=_ARMS, range=theme.steps(len(_ARMS), False))
    base = altair.Chart().encode(
        x=altair.X("arm:N", sort=_ARMS, title="what trains", axis=altair.Axis(labelAngle=0)),
        color=altair.Color("arm:N", sort=_ARMS, scale=colours, legend=None),
    )
    low_high = altair.Y("low:Q", title="test accuracy", scale=altair.Scale(zero=False))
    bars = base.mark_rule(strokeWidth=3).encode(y=low_high, y2="high:Q")
    points = base.mark_point(filled=True, size=90).encode(y="mean:Q")
    return answers.panels(altair.layer(bars, points), table.assign(panel=[f"test set {name}" for name in table["set"]]))


def main(_: list[str]) -> None:
    directory = subjects.workdir("lp_ft")
    config = subjects.digits(directory)
    config.checkpoint.keep = len(_ARMS) * len(_RATES) * subjects.SEEDS.value  # the best rates are known at the end
    trials = subjects.train(config, directory / "digits", {"trainable": _ARMS, "learning_rate": _RATES})
    rates = best_rates(trials)
    table = intervals(accuracies(directory / "digits", problem.load(config), trials, rates))
    chosen = ", ".join(f"{arm} {rate:g}" for arm, rate in rates.items())
    edges = [arm for arm, rate in rates.items() if rate in (_RATES[0], _RATES[-1])]
    print(f"Digits, ViT; rates {_RATES[0]:g} to {_RATES[-1]:g} (6 values), {subjects.SEEDS.value} seeds. Best: {chosen}"
          + (f"; at the edge of the grid: {', '.join(edges)}" if edges else "") + ".")  # fmt: skip
    print("\n".join(f"  {each}" for each in sentences(table)))
    print(
        "Rates and epochs are chosen on the validation split as it is; differences are paired by seed. head>all trains "
        "twice as many epochs as all, the first half of them the head alone."
    )
    answers.save(chart(table), "lp_ft", "Test accuracy of head, all, and all from the best head, 95 % over seeds")


if __name__ == "__main__":
    app.run(main)
