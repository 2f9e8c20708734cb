import io
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from finetune.config import DataConfig
from finetune.data import tfds
from finetune.errors import UserError

WRITTEN = {"train": 6, "validation": 2, "test": 3, "unsupervised": 1}


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data directory with one set, prepared as ArrayRecord: zebras and ants, as picture and in words."""
    import tensorflow_datasets

    class TinyAnimals(tensorflow_datasets.core.GeneratorBasedBuilder):
        __module__ = "builders"  # of a package, TFDS looks for the file with a library that it does not declare

        VERSION = tensorflow_datasets.core.Version("1.0.0")

        def _info(self):
            features = tensorflow_datasets.features
            columns = {
                "image": features.Image(shape=(4, 4, 1)),
                "words": features.Text(),
                "number": features.Scalar(np.int64),
                "vector": features.Tensor(shape=(2,), dtype=np.float32),
                "label": features.ClassLabel(names=["zebra", "ant"]),
            }
            return tensorflow_datasets.core.DatasetInfo(builder=self, features=features.FeaturesDict(columns))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, count) for split, count in WRITTEN.items()}

        def _generate_examples(self, split, count):
            for i in range(count):
                label = -1 if split == "unsupervised" else i % 2
                vector = np.zeros(2, np.float32)
                yield i, {"image": png(i), "words": f"wörd {i}", "number": i, "vector": vector, "label": label}

    directory = tmp_path_factory.mktemp("tfds")
    TinyAnimals(data_dir=directory, file_format="array_record").download_and_prepare()
    assert "tensorflow" not in sys.modules
    return directory


@pytest.fixture
def data_dir(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    return prepared


@pytest.mark.parametrize("name", ["tiny_animals", "tiny_animals:1.0.0"])
def test_images_by_name(data_dir, name):
    source = tfds.read_name(name, DataConfig())
    assert (source.kind, source.order) == ("image", ("zebra", "ant"))
    assert {split: len(examples.labels) for split, examples in source.splits.items()} == {
        "train": 6,
        "validation": 2,
        "test": 3,
    }
    found = set(zip(*source.splits["train"], strict=True))
    assert found == {(png(i), ["zebra", "ant"][i % 2]) for i in range(6)}


def test_texts_by_directory(data_dir):
    source = tfds.read_directory(data_dir / "tiny_animals/1.0.0", DataConfig(text_column="words"))
    assert source.kind == "text"
    assert set(zip(*source.splits["train"], strict=True)) == {(f"wörd {i}", ["zebra", "ant"][i % 2]) for i in range(6)}


def test_numbers_as_labels(data_dir):
    source = tfds.read_name("tiny_animals", DataConfig(label_column="number"))
    assert (source.order, sorted(source.splits["train"].labels)) == ((), list("012345"))


def test_withheld_labels_leave_a_split_out(data_dir, monkeypatch):
    monkeypatch.setattr(tfds, "SPLITS", ("train", "unsupervised"))
    assert list(tfds.read_name("tiny_animals", DataConfig()).splits) == ["train"]


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("mnist", {}, "'mnist' is not prepared: .*finetune.tf.*tfds build NAME --file_format=array_record"),
        ("no such name", {}, "'no such name' is not prepared"),
        (
            "tiny_animals",
            {"label_column": "labels"},
            "no column 'labels', present: image, label, number, vector, words",
        ),
        ("tiny_animals", {"text_column": "vector"}, "column 'vector' is Tensor.*allowed: a text or an image"),
    ],
)
def test_bad_names_and_columns(data_dir, name, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        tfds.read_name(name, DataConfig(**changes))
    assert "\n" not in str(caught.value)


def test_missing_text_column_is_named(data_dir, tmp_path):
    copy = shutil.copytree(data_dir / "tiny_animals/1.0.0", tmp_path / "1.0.0")
    features = json.loads((copy / "features.json").read_text())
    del features["featuresDict"]["features"]["image"]
    (copy / "features.json").write_text(json.dumps(features))
    with pytest.raises(UserError, match="no column 'text', present: label, number, vector, words"):
        tfds.read_directory(copy, DataConfig())


def test_damaged_directories(data_dir, tmp_path):
    copy = shutil.copytree(data_dir / "tiny_animals/1.0.0", tmp_path / "1.0.0")
    for record in copy.glob("*.array_record*"):
        record.write_bytes(record.read_bytes()[:50])
    with pytest.raises(UserError, match="cannot read the tfds set"):
        tfds.read_directory(copy, DataConfig())
    (copy / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="cannot read the tfds set in"):
        tfds.read_directory(copy, DataConfig())


def test_a_format_without_random_access(data_dir, tmp_path):
    copy = shutil.copytree(data_dir / "tiny_animals/1.0.0", tmp_path / "1.0.0")
    info = json.loads((copy / "dataset_info.json").read_text()) | {"fileFormat": "tfrecord"}
    (copy / "dataset_info.json").write_text(json.dumps(info))
    for record in list(copy.glob("*.array_record*")):
        record.rename(record.with_name(record.name.replace("array_record", "tfrecord")))
    with pytest.raises(UserError, match="tiny_animals is stored as tfrecord, allowed: array_record"):
        tfds.read_directory(copy, DataConfig())
