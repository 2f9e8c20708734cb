"""The command of a study in parts, however it was started, and the next one that is made of it."""

import pytest
from absl import flags as absl_flags

from finetune.study import flags
from finetune.trials.command import OF_A_SEARCH, Command, as_typed, parse

GIVEN = ["--config=c.py", "--workdir", "a b", "--grid=learning_rate=1e-3,1e-2", "--grid", "batch_size=8", "--seeds=3"]
MODULE, CONSOLE = ["python", "-m", "finetune"], ["finetune", "run"]


@pytest.mark.parametrize(
    "start, program",
    [
        (["/x/finetune/__main__.py"], MODULE),
        (["C:\\x\\finetune\\__main__.py"], MODULE),
        (["/x/finetune/__main__.py", "run"], [*MODULE, "run"]),
        (["/x/bin/finetune", "run"], CONSOLE),
        (["/x/bin/finetune", "plan"], CONSOLE),  # what is planned is to be run
    ],
)
def test_a_command_of_ours_in_parts(start: list[str], program: list[str]) -> None:
    grid = {"learning_rate": "1e-3,1e-2", "batch_size": "8"}
    flags = ["--config=c.py", "--workdir", "a b"]
    assert parse([*start, *GIVEN]) == Command(program, flags, grid, "3")


@pytest.mark.parametrize("arguments", [[], ["search.py", "--seeds=3"], ["/x/pytest/__main__.py"], ["/finetune/x.py"]])
def test_a_command_that_is_not_ours(arguments: list[str]) -> None:
    assert parse(arguments) is None


def test_what_holds_for_one_start_alone_is_not_kept() -> None:
    arguments = [
        "/x/finetune/__main__.py",
        "--plan_only",
        "--config=c.py",
        "--process",
        "1",
        "--processes=2",
        "--retry",
    ]
    assert parse(arguments) == Command(MODULE, ["--config=c.py", "--retry"], {}, None)


def test_the_next_command_has_new_axes_in_place_of_its_own() -> None:
    command = Command(CONSOLE, ["--config=c.py"], {"learning_rate": "log:1e-4:1e-1:7", "seed": "4,5"}, None)
    assert str(command) == "finetune run --config=c.py --grid=learning_rate=log:1e-4:1e-1:7 --grid=seed=4,5"
    assert str(command.training({"learning_rate": [0.3, 1 / 3]}, 5)) == (
        "finetune run --config=c.py --grid=learning_rate=0.3,0.3333333333333333 --seeds=5"
    )


def test_what_is_no_module_is_typed_as_it_is() -> None:
    assert as_typed(["search.py", 3]) == ["search.py", "3"]
    assert as_typed([]) == []


def test_every_flag_of_a_search_is_known_as_one():
    of_search = absl_flags.FlagValues()
    flags._define_search(of_search)
    assert set(OF_A_SEARCH) == set(of_search)


def test_what_follows_a_search_is_a_grid_beside_it():
    command = parse(
        ["finetune", "run", "--config=c.py", "--workdir=w", "--space=l2=0,1", "--search", "tpe", "--trials=8"]
    )
    assert command.search == ("--space=l2=0,1", "--search=tpe", "--trials=8")
    assert str(command) == "finetune run --config=c.py --workdir=w --space=l2=0,1 --search=tpe --trials=8"
    assert str(command.training({"l2": [0.0, 2.0]}, 3)) == (
        "finetune run --config=c.py --workdir=w_grid --grid=l2=0,2 --seeds=3"
    )
