"""What does training only a part of the model cost in accuracy, and save in time and memory, each at its own best rate?

    python experiments/freezing.py

To expect: parts with few parameters want larger rates; the answer in sentences, and figures/freezing.svg.
"""

from pathlib import Path

import answers
import pandas as pd
import subjects
from absl import app

from finetune.analysis.effects import effects
from finetune.analysis.evidence import weigh
from finetune.analysis.table.trials import Trials
from finetune.config import Config
from finetune.member import params
from finetune.storage import records
from finetune.study import problem

_PARTS = ["all", "last:2", "last:1", "norm", "bias", "head"]
_RATES = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]


def costs(config: Config, directory: Path) -> dict[str, dict[str, float]]:
    """Returns for each part: parameters that train; of a trial, as planned: seconds, flops, and bytes at once."""
    loaded = problem.load(config)
    found = {}
    for group in records.read_document(directory / "plan.json")["groups"]:
        part = group["signature"]["trainable"]
        paths = params.trainable_paths(part, loaded.task, loaded.shapes)
        found[part] = {
            "parameters": params.count({path: loaded.shapes[path] for path in paths}),
            "seconds": group["seconds"] / group["trials"],
            "flops": group["flops"] / group["trials"],
            "bytes": group["bytes"] / group["chunk"],
        }
    return found


def sentences(trials: Trials, cost: dict[str, dict[str, float]]) -> list[str]:
    """Returns one line a part, most parameters first, each against all of them at its own best rate."""
    settings = trials.settings()
    best = {part: settings[settings["trainable"] == part].iloc[0] for part in _PARTS}
    chosen = {part: {"trainable": part, "learning_rate": row["learning_rate"]} for part, row in best.items()}
    said = []
    for part in sorted(_PARTS, key=lambda each: -cost[each]["parameters"]):
        of, whole = cost[part], cost["all"]
        test = answers.words(answers.interval(answers.tests(trials, chosen[part]).to_numpy()))
        gained = answers.gain(trials, chosen[part], chosen["all"])
        compared = (
            f"; a trial is planned to take {of['seconds']:.2g} s and {of['bytes'] / 1e6:.2g} MB"
            if part == "all"
            else f", {answers.words(gained, '+.3f')} against all; {of['flops'] / whole['flops']:.1%} of its FLOPs, "
            f"{of['seconds'] / whole['seconds']:.1%} of its time, {of['bytes'] / whole['bytes']:.1%} of its memory"
        )
        edge = ", the edge of the grid" if best[part]["learning_rate"] in (_RATES[0], _RATES[-1]) else ""
        said.append(
            f"{part}: {of['parameters']:,} parameters, best rate {best[part]['learning_rate']:g}{edge}, test accuracy "
            f"{test}{compared}"
        )
    return said


def main(_: list[str]) -> None:
    directory = subjects.workdir("freezing")
    config = subjects.digits(directory)
    axes = {"trainable": _PARTS, "learning_rate": _RATES}
    trials = subjects.train(config, directory / "digits", axes)
    cost = costs(config, directory / "digits")
    print(f"Digits, ViT; rates {_RATES[0]:g} to {_RATES[-1]:g} (6 values), {subjects.SEEDS.value} seeds:")
    print("\n".join(f"  {each}" for each in sentences(trials, cost)))
    print(
        "Rates are chosen on validation, accuracies are of the test split, differences are paired by seed; the pass of "
        "the frozen part over the data is not counted. A harder task than this, one that is less like the first, or "
        "more labels would favour training more of the model."
    )
    rows = []
    for part in _PARTS:
        arm = trials._replace(
            frame=trials.frame[trials.frame["trainable"] == part].reset_index(drop=True),
            axes=tuple(axis for axis in trials.axes if axis.name == "learning_rate"),
        )
        points = next(each.points for each in effects(weigh(arm)) if each.kind == "isolated")
        rows.append(points.assign(x=points["value"], part=part, panel="digits, ViT"))
    chart = answers.lines(pd.concat(rows), "learning rate", "validation accuracy", "part")
    answers.save(chart, "freezing", "Accuracy against learning rate for each part that trains, 95 % over seeds")


if __name__ == "__main__":
    app.run(main)
