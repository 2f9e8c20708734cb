"""How does LoRA's best learning rate compare with that of full fine-tuning, and does it move with the rank?

    python experiments/lora.py

To expect: about ten times the rate of full fine-tuning, and at constant alpha, where what an adapter adds is scaled by
alpha/rank, the same rate for every rank (Schulman et al. 2025, "LoRA without regret"); and figures/lora.svg.
"""

from collections.abc import Iterator

import answers
import numpy as np
import pandas as pd
import subjects
from absl import app

from finetune.analysis.effects import effects
from finetune.analysis.evidence import weigh
from finetune.analysis.interactions import Shift, interactions
from finetune.analysis.table.trials import Trials
from finetune.config import Config

_RATES = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
_RANK, _RANKS = 8, [1, 4, 16]
_ALPHA, _ALPHA_PER_RANK = 16.0, 2.0


def sweeps() -> Iterator[tuple[str, str, list[dict[str, object]]]]:
    """Yields (name of the directory, what is constant, trials)."""
    both = [{"trainable": part, "lora_rank": _RANK, "lora_alpha": _ALPHA} for part in ("all", "lora")]
    yield "parts", f"rank {_RANK}, alpha {_ALPHA:g}", both
    adapters = [{"trainable": "lora", "lora_rank": rank} for rank in _RANKS]
    yield "alpha", f"alpha {_ALPHA:g}", [{**each, "lora_alpha": _ALPHA} for each in adapters]
    scaled = [{**each, "lora_alpha": _ALPHA_PER_RANK * rank} for each, rank in zip(adapters, _RANKS, strict=True)]
    yield "scale", f"alpha/rank {_ALPHA_PER_RANK:g}", scaled


def find(trials: Trials, by: str) -> Shift:
    """Returns how the best rate, by accuracy on validation, moves with `by` alone."""
    alone = tuple(axis for axis in trials.axes if axis.name in ("learning_rate", by))
    shifts, _ = interactions(weigh(trials._replace(axes=alone)))
    return next(shift for shift in shifts if shift.by == by)


def against_full(shift: Shift) -> str:
    """Returns the best rate of LoRA over that of full fine-tuning in words."""
    best = shift.points.set_index("value")["best"]
    sign = 1 if list(shift.points["value"]) == ["all", "lora"] else -1
    times = sorted(2.0 ** (sign * value) for value in (shift.low, shift.high))
    found = answers.words((best["lora"] / best["all"], *times), ".1f")
    edge = ", with a best rate at the edge of the grid" if shift.points["at_edge"].any() else ""
    agrees = "agrees" if times[0] <= 10 <= times[1] else "does not agree"
    return f"LoRA's best rate is {found} times that of full fine-tuning{edge}; published: about 10, which {agrees}"


def against_rank(name: str, shift: Shift) -> str:
    """Returns how the best rate moves with the rank in words."""
    moved = f"at constant {name} the best rate moves {answers.moves(shift)}"
    if not name.startswith("alpha/"):
        still = shift.low <= 0 <= shift.high
        return f"{moved}; published: it does not depend on the rank, which {'agrees' if still else 'does not agree'}"
    return f"{moved}; published: none at constant alpha/rank, where high ranks move further at the same rate"


def curves(trials: Trials, by: str, panel: str) -> Iterator[pd.DataFrame]:
    """Yields the accuracy against the rate for each value of `by`."""
    for value in dict.fromkeys(trials.frame[by]):
        arm = trials._replace(
            frame=trials.frame[trials.frame[by] == value].reset_index(drop=True),
            axes=tuple(axis for axis in trials.axes if axis.name == "learning_rate"),
        )
        points = next(each.points for each in effects(weigh(arm)) if each.kind == "isolated")
        what = {"all": "full", "lora": f"LoRA, rank {_RANK}"}.get(value) or f"LoRA, rank {value:g}"
        yield points.assign(x=points["value"], what=what, panel=panel)


def main(_: list[str]) -> None:
    directory = subjects.workdir("lora")
    config: Config = subjects.digits(directory)
    print(f"Digits, ViT; rates {_RATES[0]:g} to {_RATES[-1]:g} ({len(_RATES)} values), {subjects.SEEDS.value} seeds:")
    rows: list[pd.DataFrame] = []
    for place, name, sweep in sweeps():
        trials = subjects.train(config, directory / place, {"learning_rate": _RATES}, sweep)
        by = "trainable" if place == "parts" else "lora_rank"
        shift = find(trials, by)
        print(f"  {against_full(shift) if place == 'parts' else against_rank(name, shift)}.")
        if place == "parts":
            tops = {part: _top(trials, part) for part in ("all", "lora")}
            gained = answers.words(answers.gain(trials, tops["lora"], tops["all"]), "+.3f")
            print(f"  Each at its best rate, LoRA against full on the test split: {gained}.")
        rows += curves(trials, by, name)
    print(
        "The best rate is a parabola's vertex through the best rate of the grid and its neighbours. A larger model, a "
        "second task more like the first, or more updates would change this."
    )
    chart = answers.lines(pd.concat(rows), "learning rate", "validation accuracy", "what")
    answers.save(chart, "lora", "Accuracy against learning rate of full fine-tuning and of LoRA, 95 % over seeds")


def _top(trials: Trials, part: str) -> dict[str, object]:
    settings = trials.settings()
    rates = settings[np.array(settings["trainable"] == part)]["learning_rate"]
    return {"trainable": part, "learning_rate": rates.iloc[0]}


if __name__ == "__main__":
    app.run(main)
