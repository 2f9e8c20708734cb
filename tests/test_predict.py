"""New rows through an exported model: the same answers as the study, whatever holds the rows."""

import csv
import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from finetune import cli, data, predict
from finetune.config import DataConfig
from finetune.export import directory as export
from finetune.models.weights import exported
from finetune.study import run as study
from tests.helpers import exports
from tests.helpers.studies import digits, document


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """An exported classifier of texts with parameters as drawn."""
    directory = tmp_path_factory.mktemp("texts")
    description = {
        "architecture": exports.ARCHITECTURE,
        "model": {"dtype": "float32", "pooling": "mean"},
        "data": {"text_column": "review", "max_length": 6, "image_size": 0},
        "classes": list(exports.CLASSES),
    }
    (directory / "model").mkdir()
    leaves = exports.small(exports.drawn(exports.text_task()))
    exported.write(directory / "model", description, leaves, exports.write_tokenizer(directory))
    return directory / "model"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An exported classifier of digits, and the config of its study."""
    directory = tmp_path_factory.mktemp("images")
    config = digits("all")
    config.hparams.epochs, config.hparams.learning_rate, config.hparams.batch_size = 2, 0.01, 8
    study.run(config, directory / "study")
    export.export(directory / "study", directory / "model")
    return directory / "model", config


@pytest.fixture
def run(monkeypatch, capsys):
    """Returns a function that runs the command line and returns the rows of CSV that it printed."""

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
        status, (out, err) = cli.run(predict.main), capsys.readouterr()
        assert (status, err) == (0, "")
        return list(csv.DictReader(io.StringIO(out)))

    return start


def values(rows):
    return np.array([[float(value) for name, value in row.items() if name.startswith("p:")] for row in rows])


def test_the_study_reported_what_its_model_predicts(images, run, tmp_path):
    model, config = images
    test = data.load(config.data, None).test
    np.savez(tmp_path / "rows.npz", x=test["image"])
    rows = run(model, tmp_path / "rows.npz")
    assert [row["row"] for row in rows] == [str(number) for number in range(len(test["label"]))]
    recorded = document(model, "finetune.json")["trial"]["metrics"]
    right = [int(row["label"]) == label for row, label in zip(rows, test["label"], strict=True)]
    assert np.mean(right) == pytest.approx(recorded["test_accuracy"], abs=1e-6)
    of_label = values(rows)[np.arange(len(rows)), test["label"]]
    assert -np.log(of_label).mean() == pytest.approx(recorded["test_loss"], rel=1e-4)
    np.testing.assert_allclose(values(rows).sum(axis=1), 1, atol=1e-5)


def test_files_of_images_are_what_an_array_of_them_is(images, run, tmp_path):
    pixels = data.load(images[1].data, None).test["image"][:3]
    np.savez(tmp_path / "rows.npz", x=pixels)
    for number, image in enumerate(pixels):
        (tmp_path / "folder" / "below").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(tmp_path / "folder" / "below" / f"{number}.png")
    (tmp_path / "folder" / ".hidden").write_text("")
    expected, found = run(images[0], tmp_path / "rows.npz"), run(images[0], tmp_path / "folder")
    assert [row["row"] for row in found] == [f"below/{number}.png" for number in range(3)]
    np.testing.assert_array_equal(values(found), values(expected))
    [alone] = run(images[0], tmp_path / "folder" / "below" / "2.png")
    assert alone["row"] == "2.png"
    np.testing.assert_allclose(values([alone]), values(expected[2:]), atol=1e-5)


def test_arrays_of_images_are_scaled_as_in_training(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "rows.npz", x=pixels)
    _, found = predict._images(tmp_path / "rows.npz", DataConfig(image_size=12))
    expected = [
        np.asarray(Image.fromarray(each[..., 0]).resize((12, 12), Image.Resampling.BILINEAR)) for each in pixels
    ]
    np.testing.assert_array_equal(found[..., 0], expected)


def test_a_number_in_a_large_unit_is_written_whole():
    file, model = io.StringIO(), SimpleNamespace(config=SimpleNamespace(data=DataConfig(task="regression")))
    wanted = np.array([[1_700_105_600], [0.1]], np.float32)
    predict.write(file, model, ["0", "1"], wanted)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    np.testing.assert_array_equal([np.float32(row["value"]) for row in rows], wanted[:, 0])


def test_grey_images_become_rgb_for_a_model_of_rgb(images):
    model = predict.load(images[0])
    kernel = np.zeros((model.architecture["patch_size"] ** 2 * 3, 16), np.float32)
    model = model._replace(leaves=model.leaves | {"embeddings/patch/kernel": kernel})
    grey = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    np.testing.assert_array_equal(predict._fitted(grey, model), np.stack([grey[..., 0]] * 3, axis=-1))


def write_texts(file, texts):
    if file.suffix == ".txt":
        file.write_text("\n\n".join(texts))
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps({"review": text, "stars": 3}) + "\n" for text in texts))
    else:
        with file.open("w", newline="") as stream:
            rows = csv.writer(stream, delimiter="\t" if file.suffix == ".tsv" else ",")
            rows.writerows([["review"], *([text] for text in texts)])


@pytest.mark.parametrize("suffix, lines", [(".csv", "234"), (".tsv", "234"), (".jsonl", "123"), (".txt", "135")])
def test_whatever_holds_the_texts(texts, run, tmp_path, suffix, lines):
    sentences = exports.texts(40)
    write_texts(tmp_path / "all.txt", sentences)
    write_texts(tmp_path / f"some{suffix}", sentences[37:])
    expected, found = run(texts, tmp_path / "all.txt"), run(texts, tmp_path / f"some{suffix}")
    assert [row["row"] for row in found] == list(lines)
    assert [row["label"] for row in found] == [row["label"] for row in expected[37:]]
    np.testing.assert_allclose(values(found), values(expected[37:]), atol=1e-5)  # other lengths, another batch


def test_cut_texts_are_those_that_were_cut_before(texts, run, tmp_path):
    words = "very good film not bad book"
    write_texts(tmp_path / "rows.txt", [words, f"{words} and much that the model never reads"])
    whole, cut = values(run(texts, tmp_path / "rows.txt"))
    np.testing.assert_array_equal(whole, cut)


def test_to_a_file(texts, run, tmp_path):
    write_texts(tmp_path / "rows.txt", ["good"])
    assert run(texts, tmp_path / "rows.txt", f"--to={tmp_path}/found.csv") == []
    rows = list(csv.reader((tmp_path / "found.csv").read_text().splitlines()))
    assert rows[0] == ["row", "label", f"p:{exports.CLASSES[0]}", f"p:{exports.CLASSES[1]}"]
    assert rows[1][0] == "1"
    assert rows[1][1] in exports.CLASSES
