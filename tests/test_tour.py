"""The tour of docs/: its cells run as they stand, and show what they say."""

import ast
import json
from pathlib import Path

import pytest

import finetune

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


def shown(source, names):
    """Runs a cell, and returns the value of its last line if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)  # noqa: S102  # our own notebook
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None  # noqa: S307


@pytest.mark.slow
def test_the_cells_run_and_show_what_they_say():
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    names = {}
    values = [shown("".join(cell["source"]), names) for cell in cells if cell["cell_type"] == "code"]
    _, plan, head, answer, best, curves, shape, counts, of_table = values
    assert sum(group[0] for group in plan) == 16
    assert list(head["seed"]) == [0, 1, 0, 1, 0]
    assert len(names["results"].table()) == 16
    assert repr(answer).startswith("16 trials: 8 settings, trained with 2 seeds each; judged by validation accuracy")
    assert "<b>How sure</b>: " in answer._repr_html_()
    setting, mean, (low, high) = best
    assert set(setting) == {"learning_rate", "batch_size"}
    assert low <= mean <= high
    means = names["results"].table().groupby(["learning_rate", "batch_size"])["val_accuracy"].mean()
    assert abs(means[setting["learning_rate"], setting["batch_size"]] - mean) < 1e-9
    assert list(curves.index) == [1, 2, 3, 4, 5]
    assert shape == (16, 10)
    assert counts == (16, 24)
    assert repr(of_table).startswith("24 trials: 8 settings, trained with 3 seeds each; judged by validation accuracy")


def test_an_earlier_study_is_read(tmp_path):
    with pytest.raises(finetune.UserError, match="allowed: the work directory of a study"):
        finetune.read(tmp_path)


def test_every_public_name_is_there_and_told():
    for name in finetune.__all__:
        assert getattr(finetune, name)
        assert name in finetune.__doc__
        assert name in dir(finetune)
