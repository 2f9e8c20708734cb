"""Mistakes in a config file.

name: (content of the file, words of the line)
"""

from tests.helpers.mistakes import VIT

CONFIG_FILES = {
    "syntax error": ("def get_config(:", ["config.py", "SyntaxError"]),
    "no get_config": ("x = 1", ["config.py", "get_config"]),
    "raises": ("def get_config(): raise KeyError('gone')", ["config.py", "KeyError", "gone"]),
    "raises several lines": ("def get_config(): raise ValueError('one\\ntwo')", ["ValueError", "one two"]),
    "exits": ("def get_config(): raise SystemExit(3)", ["config.py", "SystemExit"]),
    "returns another thing": ("def get_config(): return {'model': 1}", ["get_config()", "{'model': 1}", "Config"]),
    "imports what is absent": ("import no_such_module", ["config.py", "no_such_module"]),
    "setting of another type": (
        f"{VIT.replace('return', 'config.hparams.epochs = None; return')}",
        ["hparams.epochs is None", "a whole number"],
    ),
    "section replaced": (f"{VIT.replace('return', 'config.model = 3; return')}", ["model is 3", "allowed"]),
    "unknown setting in the file": (
        f"{VIT.replace('return', 'config.hparams.epoch = 3; return')}",
        ["'hparams.epoch'", "'hparams.epochs'"],
    ),
    "sweep of a wrong name": (
        VIT + "def sweep():\n    yield {'learningrate': 1}",
        ["sweep()", "'learningrate'", "'learning_rate'"],
    ),
    "sweep of a wrong value": (VIT + "def sweep():\n    yield {'epochs': 'x'}", ["epochs is 'x'", "a number"]),
    "sweep of no dict": (VIT + "def sweep():\n    yield 3", ["sweep()", "3", "dict"]),
    "sweep of nothing": (VIT + "def sweep():\n    return iter(())", ["sweep", "no trials", "at least one"]),
    "sweep that raises": (VIT + "def sweep():\n    yield {}\n    1 / 0", ["sweep()", "ZeroDivisionError"]),
    "sweep that is no generator": (VIT + "def sweep():\n    return 3", ["sweep()", "not iterable", "dict"]),
    "sweep that is no function": (VIT + "sweep = [{}]", ["sweep()", "not callable", "generator"]),
}
