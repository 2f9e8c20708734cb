"""Every mistake of the tables is one line with its words and exit status 2, and nothing is written."""

import pytest

from tests.bad_input.table_config import CONFIG_FILES
from tests.bad_input.table_data import DATA
from tests.bad_input.table_export import ASSETS, EXPORT, PREDICT
from tests.bad_input.table_flags import FLAGS, GRID, TRAINABLE
from tests.bad_input.table_model import MODEL

TABLES = {"flag": FLAGS, "axis": GRID, "trainable": TRAINABLE, "data": DATA, "model": MODEL}
TABLES |= {"export": EXPORT, "predict": PREDICT, "assets": ASSETS, "config": CONFIG_FILES}
ROWS = {f"{table}: {name}": row for table, rows in TABLES.items() for name, row in rows.items()}


@pytest.mark.parametrize("given, words", ROWS.values(), ids=ROWS)
def test_bad_input(refused, tmp_path, given, words):
    if isinstance(given, str):  # the content of a config file
        (tmp_path / "config.py").write_text(given)
        given = [f"--config={tmp_path}/config.py"]
    refused(given, words)
