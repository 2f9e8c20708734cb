"""Commands that must fail, and what they are given."""

import shutil
import sys

import pytest

from finetune import __main__, assets, cli, predict
from finetune.export import __main__ as export
from tests.bad_input import files
from tests.helpers.mistakes import check_error

PROGRAMS = {"export": export.main, "predict": predict.main, "assets": assets.main}


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A directory of files that tests name; most of them are bad."""
    directory = tmp_path_factory.mktemp("inputs")
    files.write(directory)
    return directory


@pytest.fixture(scope="session")
def study(inputs, tmp_path_factory):
    """A study of two trials that has run to its end, and kept the weights of one."""
    directory = tmp_path_factory.mktemp("finished") / "study"
    with pytest.MonkeyPatch.context() as patch:
        arguments = [f"--config={inputs}/vit.py", f"--workdir={directory}", "--seeds=2", "--config.checkpoint.keep=1"]
        patch.setattr(sys, "argv", ["finetune", *arguments])
        assert __main__.main() == 0
    return directory


@pytest.fixture
def fails(monkeypatch, capsys):
    """Returns a function that runs a command line in this process and checks that it fails with one line of words.

    The first argument may name one of PROGRAMS; else the command is that of a study.
    """

    def run(arguments, words):
        program, *rest = map(str, arguments)
        monkeypatch.setattr(sys, "argv", ["finetune", *(rest if program in PROGRAMS else (program, *rest))])
        sys.modules.pop("config_config", None)  # as it is called, lest one file lend its names to the next
        status = cli.run(PROGRAMS[program]) if program in PROGRAMS else __main__.main()
        check_error(status, capsys.readouterr().err, words)

    return run


@pytest.fixture
def refused(inputs, tmp_path, fails, monkeypatch, request):
    """Returns a function that checks that a command fails with words before it writes anything.

    {inputs} in an argument is the directory of `inputs`, {study} a copy of `study`, {to} a place to write to.
    Arguments that name no program are added to those of a study of vit.py.
    """

    def filled(text):
        if "{study}" in text and not (tmp_path / "finished").exists():
            shutil.copytree(request.getfixturevalue("study"), tmp_path / "finished")
        return text.format(inputs=inputs, study=tmp_path / "finished", to=tmp_path / "study")

    def run(arguments, words):
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
        arguments = [filled(each) for each in arguments]
        if not arguments or arguments[0] not in PROGRAMS:
            config = [each for each in arguments if each.startswith("--config=")] or [f"--config={inputs}/vit.py"]
            rest = [each for each in arguments if each not in config]
            arguments = [*config, f"--workdir={tmp_path}/study", *rest]
        fails(arguments, words)
        assert not (tmp_path / "study" / "config.json").exists()

    return run
