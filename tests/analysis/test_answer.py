"""The answer to tables of every kind: always one, at most ten lines, and right where the truth is known."""

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finetune.analysis.answer import Answer, analyse
from finetune.analysis.finding import setting_words
from finetune.analysis.table.trials import from_frame

_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
_DECAYS = (0.0, 0.01, 0.1)


def _answer(frame: pd.DataFrame, metric: str = "score", minimize: bool = False, **more: Any) -> Answer:
    answer = analyse(from_frame(frame, metric, minimize, **more))
    assert 1 <= len(answer.headline) <= 10
    assert all("nan" not in line.lower() and "None" not in line for line in answer.headline)
    return answer


def _grid(seeds: int = 3) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        list(itertools.product(_RATES, _DECAYS, range(seeds))), columns=["learning_rate", "weight_decay", "seed"]
    )
    peak = -0.1 * (np.log10(frame["learning_rate"]) + 3) ** 2
    return frame.assign(score=0.9 + peak + 0.001 * generator.normal(size=len(frame)), test_score=0.88 + peak)


def test_headline_answers_the_four_questions() -> None:
    lines = _answer(_grid()).headline
    assert lines[0] == "45 trials: 15 settings, trained with 3 seeds each; judged by score, higher is better."
    assert lines[1].startswith("What mattered: learning_rate (0.0001 to 0.01) makes 100 % of the variance")
    assert "weight_decay (0 to 0.1) makes none that stands out from chance" in lines[1]
    use = next(line for line in lines if line.startswith("Use: "))
    assert use.startswith("Use: learning_rate 0.001, weight_decay ")
    assert "on the test split 0.8800" in use
    assert "2 other settings with learning_rate 0.001" in "\n".join(lines)
    assert "How sure: The best of 15 settings is one of 3 with 95 % confidence (3 seeds each)" in "\n".join(lines)
    assert lines[-2].startswith("Try next: ")


def test_a_line_of_the_headline_says_of_what_kind_it_is() -> None:
    answer = _answer(_grid())
    kinds = [line.kind for line in answer.lines]
    assert kinds[:4] == ["run", "mattered", "good", "use"]
    assert kinds[-2:] == ["next", "command"]
    assert {"tied", "sure"} < set(kinds)
    use = answer.lines[3]
    assert use.label == f"Use: {setting_words(answer.trials, answer.recommendation.best.values)}"
    assert answer.headline[3] == f"{use.label}; {use.text}"
    nothing = _answer(_grid().assign(score=np.nan)).lines
    assert [(line.label, line.text) for line in nothing if line.kind == "use"] == [("Use", "nothing yet.")]


def test_chance_is_called_chance() -> None:
    frame = _grid()
    answer = _answer(frame.assign(score=0.9 + 0.01 * np.random.default_rng(1).normal(size=len(frame))))
    assert answer.recommendation.best is None
    assert answer.headline[1].startswith("What mattered: nothing by more than chance")
    assert answer.headline[2].startswith("Use: any; ")
    assert "No setting is better than another by more than chance" in answer.headline[3]


def test_without_results_nothing_is_used() -> None:
    answer = _answer(_grid().assign(score=np.nan))
    assert "Use: nothing yet." in answer.headline
    assert (answer.anova, answer.good_anova, answer.effects, answer.shifts) == (None, None, (), ())


def _cases() -> dict[str, pd.DataFrame]:
    frame, single = _grid(), _grid(1)
    half = frame["learning_rate"] > 5e-4
    return {
        "one trial": single[:1],
        "one trial without a result": single[:1].assign(score=np.nan),
        "two trials": single[:2],
        "one setting with seeds": frame[:3],
        "one axis without seeds": single[single["weight_decay"] == 0].drop(columns="weight_decay"),
        "all the same": frame.assign(score=0.5),
        "half without results": frame.assign(score=frame["score"].where(half)),
        "one result": frame.assign(score=frame["score"].where(frame.index == 7)),
        "one finished setting": frame.assign(score=frame["score"].where(frame.index < 3)),
        "one seed lost everywhere": frame.assign(score=frame["score"].where(frame["seed"] > 0)),
        "infinite": frame.assign(score=frame["score"].where(half, np.inf)),
        "uneven seeds": frame.drop(index=[0, 1, 5, 17]),
        "every trial twice": pd.concat([frame, frame]),
        "strings": frame.assign(optimizer=np.where(frame["seed"] > 0, "adam<b>w", "sgd'")),
        "huge and tiny": frame.assign(score=frame["score"] * 1e12, weight_decay=frame["weight_decay"] * 1e-8),
        "negative": frame.assign(score=-frame["score"] - 5),
    }


@pytest.mark.parametrize("number, name", list(enumerate(_cases())))
def test_every_table_has_an_answer(number: int, name: str) -> None:
    frame = _cases()[name]
    names = [each for each in ("learning_rate", "weight_decay", "optimizer") if each in frame]
    answer = _answer(frame, minimize=number % 2 == 1, hyperparameters=names)
    assert answer.recommendation.sentence
    assert answer.trials.maximize == (number % 2 == 0)


def test_the_same_table_gets_the_same_answer() -> None:
    frame = _cases()["uneven seeds"]
    assert _answer(frame).headline == _answer(frame).headline


def test_few_random_trials_have_an_answer() -> None:
    generator = np.random.default_rng(2)
    frame = pd.DataFrame({"lr": 10 ** generator.uniform(-8, 4, 5), "units": generator.integers(1, 99, 5)})
    answer = _answer(frame.assign(score=generator.normal(size=5)))
    assert "ran once" in "\n".join(answer.headline)


def test_a_grid_of_20000_trials_is_answered() -> None:
    axes = (np.geomspace(1e-5, 1e-1, 20), np.linspace(0, 0.5, 20), (8, 16, 32, 64, 128), range(10))
    frame = pd.DataFrame(list(itertools.product(*axes)), columns=["learning_rate", "dropout", "batch_size", "seed"])
    noise = np.random.default_rng(3).normal(size=len(frame))
    answer = _answer(frame.assign(score=-((np.log10(frame["learning_rate"]) + 3) ** 2) + noise))
    assert answer.recommendation.best is not None
    assert 2e-4 < answer.recommendation.best.values["learning_rate"] < 5e-3


def test_analysis_does_not_import_jax() -> None:
    code = "import sys, finetune.analysis.answer; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_shares_of_settings_that_ran_once_have_no_interval() -> None:
    axes = {"learning_rate": (0.01, 0.03), "dropout": (0.0, 0.3), "batch_size": (8, 16), "trainable": ("head", "all")}
    frame = pd.DataFrame(list(itertools.product(*axes.values())), columns=list(axes)).assign(seed=0)
    _answer(frame.assign(score=np.random.default_rng(0).normal(size=len(frame))))
