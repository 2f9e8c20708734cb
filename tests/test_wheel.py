"""What an installed wheel holds is enough: commands, configs and pages, outside of the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A directory with the content of the wheel, as pip puts it beside other packages."""
    directory = tmp_path_factory.mktemp("wheel")
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(directory), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory / "site-packages")
    return directory / "site-packages"


def command(installed, *arguments):
    """Runs the console command of the wheel in an empty folder."""
    code = "import sys; from finetune.__main__ import main; sys.argv[0] = 'finetune'; sys.exit(main())"
    folder = installed.parent / "empty"
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=folder,
        env=os.environ | {"PYTHONPATH": str(installed)},
    )  # fmt: skip


def test_the_console_command_is_declared(installed):
    [entries] = installed.glob("finetune-*.dist-info/entry_points.txt")
    assert "finetune = finetune.__main__:main" in entries.read_text()


def test_every_file_of_the_package_is_in_it(installed):
    there = {str(file.relative_to(installed)) for file in (installed / "finetune").rglob("*")}
    wanted = {str(file.relative_to(ROOT)) for file in (ROOT / "finetune").rglob("*") if "__pycache__" not in file.parts}
    assert wanted <= there


def test_configs_come_with_it(installed):
    listed = command(installed, "configs")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert {line.split()[0] for line in listed.stdout.splitlines()} == {file.stem for file in ROOT.glob("configs/*.py")}
    begun = command(installed, "run", "--config=quickstart", "--workdir=runs/q", "--grid=nothing=1")
    assert begun.stdout.splitlines()[0] == f"finetune: {installed}/finetune/configs/quickstart.py -> runs/q"
    assert begun.stderr.startswith("error: axis of --grid is 'nothing'")
