"""Does the best learning rate move with the number of epochs, and does a long run that stops early replace a short one?

    python experiments/epochs.py

To expect: the cosine of a short run has decayed when it ends, that of a long run has not when it is cut off there; the
answer in sentences, and figures/epochs.svg.
"""

import answers
import pandas as pd
import subjects
from absl import app, flags

from finetune.analysis.evidence import weigh
from finetune.analysis.interactions import interactions
from finetune.analysis.table.trials import Trials

_HORIZONS = flags.DEFINE_multi_integer("horizon", [5, 10, 20, 40, 80], "epochs of the runs, ascending; repeatable")
_RATES = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]


def cut_off(trials: Trials) -> pd.DataFrame:
    """Returns the metric after each horizon, at the best rate for it: columns id, seed, epochs, short, cut.

    short: of the run that was to end there. cut: of the longest run, that far, at the rate that is best for that.
    """
    settings = trials.frame[["id", "seed", "learning_rate", "epochs"]]
    curves = trials.curves[["id", "epoch", trials.metric]].merge(settings, on="id")
    longest = curves["epochs"].max()
    rows = []
    for horizon in sorted(settings["epochs"].unique()):
        then = curves[curves["epoch"] == horizon]
        pair = []
        for runs in (then[then["epochs"] == horizon], then[then["epochs"] == longest]):
            rate = runs.groupby("learning_rate")[trials.metric].mean().idxmax()
            pair.append(runs[runs["learning_rate"] == rate].set_index("seed")[trials.metric])
        rows.append(pd.DataFrame({"epochs": horizon, "short": pair[0], "cut": pair[1]}))
    return pd.concat(rows)


def sentences(name: str, trials: Trials, cuts: pd.DataFrame) -> list[str]:
    """Returns the answer for one subject."""
    shift = next(each for each in interactions(weigh(subjects.at_the_end(trials)))[0] if each.by == "epochs")
    last = int(shift.points["value"].iloc[-1])
    runs = [f"{name}: best rate {answers.moves(shift)}."]
    for horizon, each in cuts.groupby("epochs"):
        if horizon < last:
            gained = answers.interval((each["short"] - each["cut"]).to_numpy())
            runs.append(
                f"  a run of {horizon:g} epochs less one of {last} cut off there: {answers.words(gained, '+.3f')}"
            )
    rows = trials.frame[trials.frame["epochs"] == last]
    best = rows.groupby("learning_rate")["value"].mean().idxmax()
    chosen = rows[rows["learning_rate"] == best]
    ended = subjects.at_the_end(trials).frame.loc[chosen.index, "value"]
    lost = answers.interval((chosen["value"] - ended).to_numpy())
    epoch = chosen["best_epoch"].median()
    runs.append(
        f"  of {last} epochs at its best rate {best:g} the best is epoch {epoch:g} (median); its last epoch is worse "
        f"by {answers.words(lost, '.3f')}, part of which is the choice of the best of {last} epochs itself"
    )
    return runs


def main(_: list[str]) -> None:
    directory = subjects.workdir("epochs")
    said, rows = [], []
    axes = {"learning_rate": _RATES, "epochs": _HORIZONS.value}
    for subject, config in subjects.configs(directory).items():
        trials = subjects.train(config, directory / config.data.name, axes)
        cuts = cut_off(trials)
        said += sentences(subject, trials, cuts)
        for kind, title in (("short", "ends there"), ("cut", "longest, cut off there")):
            found = {horizon: answers.interval(each[kind].to_numpy()) for horizon, each in cuts.groupby("epochs")}
            points = pd.DataFrame(found, index=["mean", "low", "high"]).T.rename_axis("x").reset_index()
            rows.append(points.assign(panel=subject, run=title))
    print(f"Rates {_RATES[0]:g} to {_RATES[-1]:g} (6 values), epochs {_HORIZONS.value}, {subjects.SEEDS.value} seeds:")
    print("\n".join(said))
    print(
        "Accuracy on validation, each at its own best rate. With a constant schedule a short run and a long one "
        "cut off are the same run; a horizon beyond the last could change what more epochs bring."
    )
    chart = answers.lines(pd.concat(rows), "epochs", "validation accuracy", "run")
    answers.save(chart, "epochs", "A run that ends there, and the longest cut off there; 95 % over seeds")


if __name__ == "__main__":
    app.run(main)
