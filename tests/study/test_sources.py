"""Whole studies of data from folders of images, tables of texts, and prepared TFDS sets."""

import csv
import io
import itertools

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from finetune.config import DataConfig, ModelConfig
from finetune.data import load
from finetune.study import run
from tests.helpers.studies import VIT, digits, document


def picture(label):
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), 250 * label, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def image_folder(directory):
    for split, label, number in itertools.product(("train", "test"), (0, 1), range(6)):
        (directory / split / f"class {label}").mkdir(parents=True, exist_ok=True)
        (directory / split / f"class {label}" / f"{number}.png").write_bytes(picture(label))
    return str(directory)


def table(directory):
    directory.mkdir()
    with (directory / "texts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence", "verdict"])
        writer.writerows([[f"{word} {word}", word] for word in ("good", "bad") * 12])
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "good": 1, "bad": 2}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    return str(directory / "texts.csv")


def prepared_set(directory):
    import tensorflow_datasets

    class BlackAndWhite(tensorflow_datasets.core.GeneratorBasedBuilder):
        __module__ = "builders"  # of a package, TFDS looks for the file with a library that it does not declare

        VERSION = tensorflow_datasets.core.Version("1.0.0")

        def _info(self):
            features = tensorflow_datasets.features
            columns = {"image": features.Image(shape=(8, 8, 1)), "label": features.ClassLabel(names=["black", "white"])}
            return tensorflow_datasets.core.DatasetInfo(builder=self, features=features.FeaturesDict(columns))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(), "test": self._generate_examples()}

        def _generate_examples(self):
            for number in range(12):
                yield number, {"image": picture(number % 2), "label": number % 2}

    BlackAndWhite(data_dir=directory, file_format="array_record").download_and_prepare()
    return "tfds:black_and_white"


@pytest.mark.parametrize("make, classes", [(image_folder, 2), (table, 2), (prepared_set, 2)])
def test_sources(tmp_path, monkeypatch, capsys, make, classes):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    name = make(tmp_path / "data")
    config = digits()
    config.data = DataConfig(name=name, text_column="sentence", label_column="verdict")
    if make is table:
        config.model = ModelConfig(**VIT | {"name": "bert", "patch_size": 0})
        config.data.tokenizer = str(tmp_path / "data" / "tokenizer.json")
    if make is prepared_set:
        config.data.label_column = "label"
    config.hparams.batch_size, config.hparams.epochs, config.hparams.learning_rate = 4, 8, 0.01
    results = run.run(config, tmp_path / "study")
    assert results.exit_status == 0
    assert len(document(tmp_path / "study", "config.json")["classes"]) == classes
    assert results.trials[0]["metrics"]["test_accuracy"] == 1.0
    # Two inputs, again and again: what is held out is in train too, and told.
    held = len(load(config.data, None).test["label"])
    counts = document(tmp_path / "study", "config.json")["data"]["duplicates"]
    assert (counts["test_in_train"], counts["of_test"]) == (held, held)
    assert document(tmp_path / "study", "summary.json")["data"]["duplicates"] == counts
    assert f"note: {held} of {held} test examples (100.0%) are in train too" in capsys.readouterr().out
    assert (tmp_path / "study" / "tokenizer.json").exists() == (make is table)
