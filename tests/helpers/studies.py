"""Quick studies of digits, and what they left in their work directories."""

import json

import pytest

from finetune.config import Config, DataConfig, ExecutionConfig, ModelConfig

VIT = {"name": "vit", "pretrained": "", "width": 16, "depth": 1, "heads": 2, "mlp_width": 16, "patch_size": 4}
EXAMPLES = 40
NUMBERS = ("train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy")


def digits(trainable="head", **execution):
    """Returns the config of a quick study of digits on one device."""
    config = Config(trainable=trainable)
    config.model = ModelConfig(**VIT)
    config.data = DataConfig(name="digits", train_examples=EXAMPLES, validation_examples=30)
    config.execution = ExecutionConfig(**{"mode": "vmap", "devices": 1} | execution)
    return config


def saved_at_once(**execution):
    """Returns the settings of a study of digits that is saved after every epoch."""
    config = digits("head", epochs_on_device="scan", **execution)
    config.trunk.mode = "cached"
    config.checkpoint.interval_seconds = 0.0
    return config


def rows_of(workdir, name="trials.jsonl"):
    """Returns the rows of a file of lines."""
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def by_id(workdir):
    """Returns the rows of trials.jsonl by id, each of which is there once."""
    rows = rows_of(workdir)
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def document(workdir, name):
    """Returns the content of a JSON file."""
    return json.loads((workdir / name).read_text())


def close(found, expected, tolerance):
    """Checks that two studies have the same trials, with the same results but for rounding."""
    found, expected = ({row["id"]: row for row in rows} for rows in (found, expected))
    assert found.keys() == expected.keys()
    for identity, row in found.items():
        for key in ("hparams", "seed", "status", "steps"):
            assert row[key] == expected[identity][key]
        assert row["best"]["epoch"] == expected[identity]["best"]["epoch"]
        for name in NUMBERS:
            assert row["metrics"][name] == pytest.approx(expected[identity]["metrics"][name], rel=tolerance)
