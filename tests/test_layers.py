"""The house: imports point down the order of packages, and what is low needs little."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each may import those above it in this list, and nothing else of finetune. CONTRIBUTING.md says what each holds.
ORDER = (
    "errors", "declaration", "data_config", "config", "storage", "hosts", "cli", "assets", "trials", "search", "data",
    "jaxpr", "member", "models.weights", "models.adapters", "models", "trunk", "population", "analysis.table",
    "analysis.statistics", "analysis", "report", "study", "export", "predict", "propose", "__main__",
)  # fmt: skip
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in (ROOT / "finetune").rglob("*.py")
}


def room(module: str) -> str:
    """Returns the entry of ORDER that a module is in."""
    inside = [each for each in ORDER if f"{module}.".startswith(f"finetune.{each}.")]
    return max(inside, key=len, default=module)


def imports(file: Path) -> Iterator[str]:
    """Yields the modules of finetune that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = (f"{node.module}.{each.name}" for each in node.names)
            yield from (each if each in MODULES else node.module for each in inner)


ARROWS = {module: sorted({each for each in imports(file) if each != module}) for module, file in MODULES.items()}


def test_every_module_is_in_a_room():
    assert {room(module) for module in MODULES} - {"finetune"} == set(ORDER)


def test_imports_point_down():
    rank = {name: place for place, name in enumerate(ORDER)}
    upward = [
        f"{module} -> {target}"
        for module, targets in ARROWS.items()
        for target in targets
        if "finetune" not in (module, target) and rank[room(target)] > rank[room(module)]
    ]
    assert not upward


def test_no_modules_import_each_other_in_a_circle():
    left = {module: set(targets) for module, targets in ARROWS.items()}
    while free := [module for module, targets in left.items() if not targets & left.keys()]:
        for module in free:
            del left[module]
    assert not left


def test_no_two_files_have_one_name():
    names = [Path(file).stem for file in MODULES.values() if not Path(file).stem.startswith("__")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def loaded_by(module: str) -> set[str]:
    """Returns the entries of ORDER that a fresh process has loaded when it has imported `module`."""
    code = f"import sys, {module}; print(*(name for name in sys.modules if name.startswith('finetune.')))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return {room(name) for name in names.split() if name in MODULES}


@pytest.mark.parametrize(
    "module, rooms",
    [
        (
            "finetune.member.step",
            {"errors", "declaration", "data_config", "config", "hosts", "trials", "jaxpr", "member", "storage"},
        ),
        (
            "finetune.analysis.answer",
            {"errors", "storage", "trials", "analysis", "analysis.table", "analysis.statistics"},
        ),
    ],
)
def test_what_is_low_needs_little(module: str, rooms: set[str]):
    assert loaded_by(module) <= rooms


def test_the_map_names_every_room():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert [
        name for name in ORDER if "_" not in name and f"{name.split('.')[-1]}/" not in text and f"{name}.py" not in text
    ] == []
