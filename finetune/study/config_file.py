"""Config files: by path, or by the name of one that comes with the package; executed once."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import finetune
from finetune import cli
from finetune.config import Config
from finetune.errors import UserError, one_of

_OWN = ("task", "loss", "metrics")


class Defined(NamedTuple):
    """What a config file defines: the config, what its sweep() yields or one empty assignment, and the user's own.

    own: of `task`, `loss` and `metrics` those that are there, as `run` takes them.
    """

    config: Config
    sweep: list[Mapping[str, Any]]
    own: dict[str, Any]


def packaged() -> dict[str, Path]:
    """Returns the files of the configs that come with the package, by name."""
    package = Path(finetune.__file__).parent
    inside = package / "configs"
    directory = inside if inside.is_dir() else package.parent / "configs"  # of a wheel, and of a checkout
    return {file.stem: file for file in sorted(directory.glob("*.py"))}


def about(file: Path) -> str:
    """Returns the first line of what a config file says of itself."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def find(given: str) -> tuple[Path, str]:
    """Returns (file, argument of its get_config) of PATH, NAME, PATH:ARGUMENT or NAME:ARGUMENT.

    Raises UserError where there is no such file.
    """
    path, _, argument = given.partition(":")
    if Path(path).is_file():
        return Path(path), argument
    if not path or path.endswith(".py") or "/" in path:
        raise UserError(f"--config is {given!r}, allowed: one file, or one of {', '.join(packaged())}")
    if path not in packaged():
        raise one_of("--config", path, packaged())
    return packaged()[path], argument


def read(file: Path, argument: str) -> Defined:
    """Executes a config file; raises UserError for whatever it raises, and where it gives no `Config`."""
    defined = cli.defined(file)
    if "get_config" not in defined:
        raise UserError(f"config file {file} defines no get_config, allowed: get_config() that returns a Config")
    config = _called(f"get_config() of {file}", lambda: defined["get_config"](*([argument] if argument else [])))
    if not isinstance(config, Config):
        raise UserError(f"get_config() of {file} returns {config!r}, allowed: a finetune.config.Config")
    sweep: list[Mapping[str, Any]] = [{}]
    if "sweep" in defined:
        what, allowed = f"sweep() of {file}", "a generator of one dict for each trial"
        sweep = _called(what, lambda: list(defined["sweep"]()), allowed)
    return Defined(config, sweep, {"task": None} | {name: defined[name] for name in _OWN if name in defined})


def _called(what: str, call: Any, allowed: str = "") -> Any:
    try:
        return call()
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        said = f"{what}: {type(error).__name__}: {error}"
        raise UserError(f"{said}, allowed: {allowed}" if allowed else said) from error
