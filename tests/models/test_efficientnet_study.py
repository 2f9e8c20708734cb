"""An EfficientNet through a whole study: a folder of images, one trunk, an export, new images, and on from there."""

import csv
import sys

import numpy as np
import pytest
from PIL import Image

from finetune import cli, predict
from finetune.config import Config, DataConfig, ExecutionConfig, ModelConfig
from finetune.export import directory as export
from finetune.models.weights import exported
from finetune.study import run
from finetune.trunk import feature_pass
from tests.helpers.studies import document

RATES = [0.01, 0.03, 0.1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of two classes and many sizes, grey and coloured: stripes that lie, and stripes that stand."""
    directory, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 8), ("test", 6)):
        for number in range(count):
            pixels = (random.integers(0, 60, (40, 36)) + 190 * (np.arange(40) // 4 % 2)[:, None]).astype(np.uint8)
            pixels = pixels.T if number % 2 else pixels
            pixels = pixels if number % 3 else np.stack([pixels, pixels // 2, pixels // 3], axis=-1)
            file = directory / split / ("standing" if number % 2 else "lying") / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return directory


def config(folder, pretrained, trainable="head"):
    found = Config(trainable=trainable)
    found.model = ModelConfig(name="efficientnet", pretrained=pretrained, dropout_at="head")
    if not pretrained:
        found.model.width, found.model.depth = 8, 1
    found.data = DataConfig(name=str(folder), image_size=32)
    found.hparams.epochs, found.hparams.batch_size = 2, 8
    found.execution = ExecutionConfig(mode="vmap", devices=1, epochs_on_device="scan")
    found.checkpoint.keep = 1
    return found


def test_from_a_folder_to_predictions(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(feature_pass, "_WORTH_KEEPING_FLOPS", 0)
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    for name, seeds, passes in (("first", [0, 1], 1), ("second", [2], 0)):
        run.run(config(folder, ""), tmp_path / name, {"learning_rate": RATES, "seed": seeds})
        (group,) = document(tmp_path / name, "plan.json")["groups"]
        assert (group["trunk"], group["trunk_bytes"]) == ("cached", 4 * 320 * (24 + 8 + 6))
        summary = document(tmp_path / name, "summary.json")
        assert (summary["trunk_passes"], summary["complete"]) == (passes, 3 * len(seeds))
        assert ("found, as an earlier study left it" in capsys.readouterr().out) == (passes == 0)

    export.export(tmp_path / "first", tmp_path / "model")
    words = ["predict", tmp_path / "model", folder / "test", f"--to={tmp_path / 'found.csv'}"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    assert cli.run(predict.main) == 0
    rows = list(csv.DictReader((tmp_path / "found.csv").read_text().splitlines()))
    right = np.mean([row["label"] == row["row"].split("/")[0] for row in rows])
    trial = document(tmp_path / "model", "finetune.json")["trial"]
    assert len(rows) == 6
    assert right == pytest.approx(trial["metrics"]["test_accuracy"])

    run.run(config(folder, str(tmp_path / "model"), "all"), tmp_path / "third", {"learning_rate": [0.001, 0.01]})
    before = exported.parameters(tmp_path / "model")
    export.export(tmp_path / "third", tmp_path / "after")
    after = exported.parameters(tmp_path / "after")
    moved = {path for path in before if (before[path] != after[path]).any()}
    assert moved == {path for path in before if not path.endswith(("/mean", "/variance"))}
