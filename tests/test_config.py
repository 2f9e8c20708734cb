import ast
import dataclasses
import re
import runpy
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from finetune import config as settings
from finetune.config import Config, HparamsConfig
from finetune.errors import UserError
from finetune.trials.assignment import STATIC
from finetune.trials.grid import make_trials
from finetune.trials.hparams import NAMES

ROOT = Path(settings.__file__).parent
CONFIGS = sorted((ROOT.parent / "configs").glob("*.py"))


def unread(config) -> list[str]:
    """Returns the settings that no module but config.py reads.

    They are read as an attribute, a hyperparameter by name of a trial too, or by name where getattr is called.
    """
    read = set()
    for file in ROOT.rglob("*.py"):
        if file != Path(settings.__file__):
            text = file.read_text()
            nodes = list(ast.walk(ast.parse(text)))
            read |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
            read |= {
                node.slice.value
                for node in nodes
                if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)
                if getattr(node.value, "attr", "") == "hparams"  # trial.hparams["epochs"]
            }
            if "getattr(" in text or "SIZES = " in text:
                read |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return [name for name, _ in settings.fields(config) if name.split(".")[-1] not in read]


def test_every_setting_is_read():
    assert unread(Config()) == []


def test_a_setting_that_nothing_reads_is_found():
    @dataclass
    class Larger(Config):
        hparams: HparamsConfig = field(default_factory=lambda: dataclasses.make_dataclass("H", [("glee", int, 1)])())
        patience: int = 3

    assert unread(Larger()) == ["hparams.glee", "patience"]


def test_hyperparameters_are_those_of_the_program():
    assert tuple(each.name for each in dataclasses.fields(HparamsConfig)) == NAMES


def test_closed_lists_hold_their_defaults():
    defaults = dict(settings.fields(Config()))
    for name, allowed in settings.CHOICES.items():
        assert defaults[name] in allowed


def test_each_setting_says_what_it_is_and_help_has_it_with_default_and_what_is_allowed():
    lines = list(settings.help_lines())
    assert [line.partition(" = ")[0] for line in lines] == [name for name, _ in settings.fields(Config())]
    assert "hparams.momentum = 0.9: of sgd; allowed: 0 <= value < 1" in lines
    assert "optimizer.name = 'adamw': the update; allowed: adamw, sgd, lion" in lines
    assert "execution.chunk = 0: members a program; 0 = as many as fit" in lines
    assert all(about["what"] for about in settings.DECLARED.values())


def test_each_thing_in_which_trials_differ_stands_in_the_table_of_levers():
    table = (ROOT.parent / "README.md").read_text().partition("| lever | hyperparameters |")[2].partition("\n\n")[0]
    assert {*NAMES, *STATIC} <= set(re.findall(r"`([\w.]+)`", table))
    for name in ("optimizer.name", "optimizer.schedule"):
        assert f"({', '.join(settings.CHOICES[name])})" in table


def test_defaults_pass():
    settings.check(Config())


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_config_file_builds(file):
    module = runpy.run_path(str(file))
    assert module["__doc__"]
    config = module["get_config"]()
    config.data.name = config.data.name or "mine.csv"  # of those for the user's own data
    settings.check(config)
    make_trials(config, {}, module.get("sweep", lambda: ({},))())


def test_there_are_config_files():
    assert {file.stem for file in CONFIGS} >= {"quickstart"}


def change(name, value):
    config = Config()
    *sections, leaf = name.split(".")
    section = config
    for each in sections:
        section = getattr(section, each)
    setattr(section, leaf, value)
    return config


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("hparams.epoch", 3, "setting is 'hparams.epoch', .*did you mean 'hparams.epochs'"),
        ("hparams.epochs", True, "hparams.epochs is True, allowed: a whole number"),
        ("hparams.epochs", 2.0, "hparams.epochs is 2.0, allowed: a whole number"),
        ("hparams.learning_rate", "1", "hparams.learning_rate is '1', allowed: a number"),
        ("data.name", Path("x"), "data.name is .*, allowed: text"),
        ("data.classes", "ab", "data.classes is 'ab', allowed: a tuple"),
        ("data.max_length", 2**31, "data.max_length is 2147483648, allowed: 0 to 2147483647"),
        ("execution.chunk", -1, "execution.chunk is -1, allowed: 0 to"),
        ("optimizer.epsilon", float("nan"), "optimizer.epsilon is nan, allowed: above 0"),
        ("optimizer.schedule", "cos", "optimizer.schedule is 'cos', allowed: .*did you mean 'cosine'"),
    ],
)
def test_bad_settings(name, value, message):
    with pytest.raises(UserError, match=message):
        settings.check(change(name, value))


@pytest.mark.parametrize(
    "name, value", [("hparams.learning_rate", 1), ("data.classes", ["a"]), ("optimizer.epsilon", 1e-6)]
)
def test_settings_of_a_near_type(name, value):
    settings.check(change(name, value))


def test_arms_of_r8_have_five_rates_of_their_own_and_a_program_each():
    module = runpy.run_path(str(ROOT.parent / "configs" / "r8_arms.py"))
    trials = make_trials(module["get_config"](), {}, module["sweep"]())
    found = {}
    for trial in trials:
        found.setdefault(tuple(trial.choices.values()), []).append(trial)
    assert [choices[0] for choices in found] == ["head", "bias", "norm", "last:1", "lora", "all"]
    for arm in found.values():
        settings = {(trial.hparams["learning_rate"], trial.hparams["seed"]) for trial in arm}
        assert len(settings) == len(arm) == 15
        assert len({rate for rate, _ in settings}) == 5
