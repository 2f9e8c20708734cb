import os
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

import finetune
from finetune import __main__
from finetune.config import Config
from finetune.hosts import signals
from finetune.study import run as study

ROOT = Path(__main__.__file__).parent.parent
CONFIG = "from finetune.config import Config\ndef get_config(arg='none'):\n    return Config(trainable=arg)\n"
SWEEP = "def sweep():\n    for rate in (1e-3, 1e-2):\n        yield {'learning_rate': rate}\n"


def python(*arguments, **environment):
    """Runs Python where the package is importable, and returns the finished process."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment)


def test_help_names_flags_and_settings():
    done = python("-m", "finetune", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("--config", "--workdir", "--grid", "--seeds", "--plan_only", "hparams.learning_rate = 0.001"):
        assert word in done.stdout


def test_help_does_not_wait_for_jax():
    code = "import sys; sys.argv[1:] = ['--help']; from finetune import __main__; __main__.main();"
    assert python("-c", code + "sys.exit('jax' in sys.modules)").returncode == 0


def test_first_line_does_not_wait_for_jax(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Tell:\n"
        "    def find_spec(name, path, target=None):\n"
        "        if name == 'jax':\n"
        "            print('jax is imported', flush=True)\n"
        "sys.meta_path.insert(0, Tell)\n"
    )
    command = ["-m", "finetune", f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/study", "--grid=x=1"]
    lines = python(*command, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}").stdout.splitlines()
    assert lines == [f"finetune: {tmp_path}/config.py -> {tmp_path}/study", "jax is imported"]


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Returns a function that starts a command line and returns what `study.run` was called with."""
    calls = []

    def run(config, workdir, axes, sweep, plan_only, **choices):
        calls.append(
            SimpleNamespace(
                config=config, workdir=workdir, axes=axes, sweep=list(sweep), plan_only=plan_only, choices=choices
            )
        )
        return SimpleNamespace(exit_status=7)

    def start(*arguments, file=CONFIG, suffix=""):
        (tmp_path / "config.py").write_text(file)
        sys.modules.pop("config_config", None)
        command = ["finetune", f"--workdir={tmp_path}/study", *arguments, f"--config={tmp_path}/config.py{suffix}"]
        monkeypatch.setattr(sys, "argv", command)
        assert __main__.main() == 7
        return calls.pop()

    monkeypatch.setattr(study, "run", run)
    monkeypatch.setattr(signals, "install", lambda last_words, tell: None)
    return start


def test_overrides_reach_the_config(started):
    found = started(
        "--config.hparams.learning_rate=3",
        "--config.hparams.epochs=4",
        "--config.optimizer.name=sgd",
        "--config.data.classes=a,b c",
        "--config.model.pretrained=",
        "--config.trainable=block_0/*+!norm",
    )
    expected = Config(trainable="block_0/*+!norm")
    expected.hparams.learning_rate, expected.hparams.epochs = 3.0, 4
    expected.optimizer.name, expected.data.classes, expected.model.pretrained = "sgd", ("a", "b c"), ""
    assert found.config == expected
    assert type(found.config.hparams.learning_rate) is float
    assert (found.axes, found.sweep, found.plan_only) == ({}, [{}], False)


def test_grid_sweep_and_plan(started, tmp_path):
    found = started("--grid=learning_rate=log:1e-3:1e-1:3", "--seeds=2", "--plan_only", file=CONFIG + SWEEP)
    assert found.axes == {"learning_rate": [0.001, 0.01, 0.1], "seed": [0, 1]}
    assert found.sweep == [{"learning_rate": 1e-3}, {"learning_rate": 1e-2}]
    assert found.plan_only
    assert found.choices == {"retry": False, "fail_fast": False, "task": None}
    assert Path(found.workdir) == tmp_path / "study"


def test_empty_tuple_and_argument_of_a_config_file(started):
    found = started("--config.data.classes=", suffix=":last:1").config
    assert (found.data.classes, found.trainable) == ((), "last:1")


def test_an_interrupt_tells_how_to_continue(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **choices):
        raise KeyboardInterrupt

    (tmp_path / "config.py").write_text(CONFIG)
    monkeypatch.setattr(study, "run", interrupted)
    monkeypatch.setattr(signals, "install", lambda last_words, tell: None)
    monkeypatch.setattr(sys, "argv", ["finetune", f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/study"])
    sys.modules.pop("config_config", None)
    assert __main__.main() == 130
    assert "the same command continues" in capsys.readouterr().err


@pytest.mark.parametrize("name", [each.name for each in pkgutil.walk_packages(finetune.__path__, "finetune.")])
def test_every_module_imports(name):
    import_module(name)


def test_assets_are_listed(tmp_path):
    done = python("-m", "finetune.assets", FINETUNE_CACHE=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("minilm", "r8", "r52", "20newsgroups", str(tmp_path)):
        assert name in done.stdout
