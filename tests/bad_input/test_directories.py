"""Work directories that cannot be written, are damaged, or belong to another study."""

import shutil
import tempfile

import pytest


def test_workdirs_that_cannot_be_written(inputs, tmp_path, fails, monkeypatch):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        fails([f"--config={inputs}/vit.py", f"--workdir={path}"], [str(path), "is a file", "a directory"])
    fails([f"--config={inputs}/vit.py", "--workdir=/proc/study"], ["/proc/study", "a writable directory"])

    def refuse(*arguments, **settings):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    fails([f"--config={inputs}/vit.py", f"--workdir={tmp_path}/study"], ["Permission denied", "a writable directory"])


OTHER_STUDIES = {
    "other data": (["--config.data.split_seed=1"], ["differs in data"]),
    "other model": (["--config.model.depth=2"], ["differs in architecture"]),
    "other metric": (["--config.evaluation.metric=loss"], ["differs in metric"]),
    "weights of itself": (["--config.model.pretrained={study}"], ["differs in weights"]),
}


@pytest.mark.parametrize("arguments, words", OTHER_STUDIES.values(), ids=OTHER_STUDIES)
def test_workdir_of_another_study(inputs, study, fails, arguments, words):
    before = (study / "config.json").read_text()
    arguments = [each.format(study=study) for each in arguments]
    fails([f"--config={inputs}/vit.py", f"--workdir={study}", *arguments], [str(study), *words, "a new directory"])
    assert (study / "config.json").read_text() == before


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff"])
def test_a_config_file_of_something_else(inputs, tmp_path, fails, content):
    (tmp_path / "config.json").write_bytes(content)
    fails([f"--config={inputs}/vit.py", f"--workdir={tmp_path}"], [f"{tmp_path}/config.json", "a new directory"])
    assert (tmp_path / "config.json").read_bytes() == content


@pytest.mark.parametrize("content", ["{}", '{"description": []}'])
def test_workdir_of_something_else(inputs, study, tmp_path, fails, content):
    shutil.copytree(study, tmp_path / "study")
    (tmp_path / "study" / "config.json").write_text(content)
    fails([f"--config={inputs}/vit.py", f"--workdir={tmp_path}/study"], ["format 1", "a new directory"])


def test_weights_of_a_study(inputs, study, tmp_path, fails):
    def start(*words, arguments=()):
        weights = f"--config.model.pretrained={tmp_path}/earlier"
        fails([f"--config={inputs}/vit.py", f"--workdir={tmp_path}/study", weights, *arguments], words)

    shutil.copytree(study, tmp_path / "earlier")
    start("weights of a 'vit'", "'efficientnet'", arguments=["--config.model.name=efficientnet"])
    start("model.width is 4", "allowed", "8", arguments=["--config.model.width=4"])
    trial = next((tmp_path / "earlier/checkpoints/trials").iterdir())
    for file in (each for each in (trial / "best").rglob("*") if each.is_file()):
        file.write_bytes(b"")
    start("checkpoint", f"{trial}/best", "cannot be read")
    (tmp_path / "earlier/trials.jsonl").write_text('{"id": 3}\n')
    start("trials.jsonl", "allowed")
    (tmp_path / "earlier/trials.jsonl").unlink()
    start(str(tmp_path / "earlier"), "no finished trial")
    (tmp_path / "earlier/config.json").write_text("{}")
    start("config.json", "architecture")
