"""What is wrong with a command shows before weights are read or drawn."""

import pytest

from finetune.models.weights import pretrained
from finetune.study import problem
from tests.bad_input.table_config import CONFIG_FILES
from tests.bad_input.table_data import DATA
from tests.bad_input.table_flags import FLAGS, GRID
from tests.helpers.mistakes import BERT

EARLY = {
    "axis": GRID["unknown axis"],
    "value on an axis": GRID["out of range"],
    "setting": FLAGS["unknown setting"],
    "metric": FLAGS["unknown metric"],
    "column": DATA["missing column"],
    "label": DATA["empty label"],
    "class": DATA["unknown class"],
    "tokenizer": ([*BERT, "--config.data.name={inputs}/texts.csv", "--config.data.tokenizer=no.json"], ["no.json"]),
}


@pytest.fixture(autouse=True)
def slow(monkeypatch):
    monkeypatch.setattr(pretrained, "load", lambda *arguments: pytest.fail("weights were read"))
    monkeypatch.setattr(problem, "_drawn", lambda *arguments: pytest.fail("weights were drawn"))


@pytest.mark.parametrize("arguments, words", EARLY.values(), ids=EARLY)
def test_mistakes_show_early(refused, arguments, words):
    refused(arguments, words)


def test_mistakes_in_a_sweep_show_early(refused, tmp_path):
    content, words = CONFIG_FILES["sweep of a wrong name"]
    (tmp_path / "config.py").write_text(content)
    refused([f"--config={tmp_path}/config.py"], words)
