import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from finetune import assets
from finetune.config import DataConfig
from finetune.data import load
from finetune.errors import UserError


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory) -> Path:
    """Word number i has id i."""
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(200)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


def write_csv(file: Path, labels: str, start: int = 0) -> str:
    """Row i holds the text w{start + i} and the label labels[i]."""
    rows = [f"w{start + i},{label}" for i, label in enumerate(labels)]
    file.write_text("\n".join(["text,label", *rows]) + "\n")
    return str(file)


def ids(split: dict[str, np.ndarray]) -> list[int]:
    return split["input_ids"][:, 0].tolist()


def write_npz(file: Path, **changes: np.ndarray) -> str:
    y = np.arange(40) % 4
    x = np.arange(40 * 6, dtype=np.uint8).reshape(40, 3, 2)
    np.savez(file, **({"x_train": x, "y_train": y} | changes))
    return str(file)


def test_one_file_is_split_in_three(tmp_path, tokenizer_file):
    labels = "b" * 60 + "a" * 30 + "c" * 10
    data = load(DataConfig(name=write_csv(tmp_path / "x.csv", labels)), tokenizer_file)
    assert data.classes == ("a", "b", "c")
    # A fifth for test; of what is left a fifth for validation: 4.8, 9.6 and 1.6, and a tie goes to the first.
    assert np.bincount(data.test["label"]).tolist() == [6, 12, 2]
    assert np.bincount(data.validation["label"]).tolist() == [5, 10, 1]
    assert np.bincount(data.train["label"]).tolist() == [19, 38, 7]
    splits = (data.train, data.validation, data.test)
    assert sorted(i for split in splits for i in ids(split)) == list(range(100))
    for split in splits:
        assert {key: array.dtype for key, array in split.items()} == {
            "input_ids": np.uint16,
            "length": np.int32,
            "label": np.int32,
        }
        assert [data.classes[label] for label in split["label"]] == [labels[i] for i in ids(split)]


def test_given_splits_are_kept(tmp_path, tokenizer_file):
    write_csv(tmp_path / "train.csv", "ab" * 5)
    write_csv(tmp_path / "validation.csv", "ab", start=20)
    write_csv(tmp_path / "test.csv", "aab", start=30)
    data = load(DataConfig(name=str(tmp_path)), tokenizer_file)
    assert (ids(data.train), ids(data.validation), ids(data.test)) == (list(range(10)), [20, 21], [30, 31, 32])
    data = load(DataConfig(name=str(tmp_path), train_examples=4), tokenizer_file)
    assert (sorted(data.train["label"]), ids(data.validation)) == ([0, 0, 1, 1], [20, 21])
    moved = load(DataConfig(name=str(tmp_path), train_examples=4, split_seed=1), tokenizer_file)
    assert ids(moved.train) != ids(data.train)


def test_what_moves_a_split(tmp_path, tokenizer_file):
    name = write_csv(tmp_path / "x.csv", "ab" * 50)
    loaded = {
        key: load(DataConfig(name=name, **changes), tokenizer_file)
        for key, changes in {
            "base": {},
            "few": {"train_examples": 10},
            "seed": {"split_seed": 1},
            "sized": {"validation_examples": 30},
        }.items()
    }
    base, few, seed, sized = loaded.values()
    assert ids(base.test) == ids(few.test) == ids(seed.test) == ids(sized.test)
    assert ids(base.validation) == ids(few.validation) != ids(seed.validation)
    assert set(ids(few.train)) < set(ids(base.train))
    assert np.bincount(few.train["label"]).tolist() == [5, 5]
    assert (len(ids(sized.validation)), len(ids(sized.train))) == (30, 50)
    assert len({data.content_hash for data in loaded.values()}) == 4


def test_class_filter_renumbers(tmp_path, tokenizer_file):
    name = write_csv(tmp_path / "x.csv", "dcba" * 10)
    data = load(DataConfig(name=name, classes=("d", "b")), tokenizer_file)
    assert data.classes == ("b", "d")
    assert sorted(ids(data.train) + ids(data.validation) + ids(data.test)) == list(range(0, 40, 2))
    assert all((i % 4 == 0) == (label == 1) for i, label in zip(ids(data.train), data.train["label"], strict=True))


def test_a_class_of_one_example_stays_in_train(tmp_path, tokenizer_file):
    data = load(DataConfig(name=write_csv(tmp_path / "x.csv", "a" * 20 + "b")), tokenizer_file)
    assert (data.train["label"] == 1).sum() == 1


def test_longest_text_of_any_split_sets_the_width(tmp_path, tokenizer_file):
    write_csv(tmp_path / "train.csv", "ab" * 5)
    (tmp_path / "test.csv").write_text("text,label\nw1 w2 w3 w4 w5,a\nw7,b\n")
    wide = load(DataConfig(name=str(tmp_path)), tokenizer_file)
    assert wide.train["input_ids"].shape[1] == wide.validation["input_ids"].shape[1] == 5
    assert wide.test["length"].tolist() == [5, 1]
    narrow = load(DataConfig(name=str(tmp_path), max_length=3, tokenizer=str(tokenizer_file)), None)
    assert narrow.test["input_ids"].tolist() == [[1, 2, 3], [7, 0, 0]]


def test_one_number_is_one_class(tmp_path, tokenizer_file):
    (tmp_path / "train.csv").write_text("text,label\n" + "w1,0\nw2,1\n" * 5)
    (tmp_path / "val.csv").write_text("text,label\nw3,1.0\nw4,0.0\n")
    (tmp_path / "test.csv").write_text("text,label\nw5,1\nw6,1\n")
    data = load(DataConfig(name=str(tmp_path)), tokenizer_file)
    assert (data.classes, data.validation["label"].tolist()) == (("0", "1"), [1, 0])
    assert "labels of split validation such as 0.0 are read as 0" in data.notes
    # Codes such as 250 and 250.0 are two where one split has both.
    (tmp_path / "train.csv").write_text("text,label\n" + "w1,1.0\nw2,1\nw3,0.0\n" * 5)
    assert load(DataConfig(name=str(tmp_path)), tokenizer_file).classes == ("0.0", "1", "1.0")
    (tmp_path / "train.csv").write_text("text,label\n" + "w1,nan\nw2,1\nw3,0\n" * 5)
    with pytest.raises(UserError, match="a label is nan where all others are numbers"):
        load(DataConfig(name=str(tmp_path)), tokenizer_file)


def test_an_unlabelled_test_split_is_told_and_another_one_drawn(tmp_path, tokenizer_file):
    write_csv(tmp_path / "train.csv", "ab" * 10)
    (tmp_path / "test.csv").write_text("id,text\n7,w30\n")
    data = load(DataConfig(name=str(tmp_path)), tokenizer_file)
    assert (len(data.test["label"]), 30 in ids(data.test)) == (4, False)
    assert data.notes[0].startswith(f"{tmp_path / 'test.csv'} has no labels: it is not scored")


def test_what_is_in_two_splits_is_counted_and_told(tmp_path, tokenizer_file):
    write_csv(tmp_path / "train.csv", "ab" * 5)
    write_csv(tmp_path / "validation.csv", "aabb", start=8)  # w8 and w9 are in train, with other labels
    write_csv(tmp_path / "test.csv", "ab", start=30)
    data = load(DataConfig(name=str(tmp_path)), tokenizer_file)
    counts = {"validation_in_train": 2, "of": 4, "test_in_train": 0, "of_test": 2}
    assert data.facts == {"duplicates": counts, "cut_share": 0.0}
    assert [note.partition(":")[0] for note in data.notes] == [
        "2 of 4 validation examples (50.0%) are in train too, as the model reads them"
    ]


def test_duplicates_of_arrays(tmp_path):
    x = np.arange(60, dtype=np.float32).reshape(20, 3)
    held = np.concatenate([x[:3], -x[3:5]])
    y = np.arange(20) % 2
    write_npz(tmp_path / "x.npz", x_train=x, y_train=y, x_test=held, y_test=y[:5], x_val=x, y_val=y)
    counts = {"validation_in_train": 20, "of": 20, "test_in_train": 3, "of_test": 5}
    assert load(DataConfig(name=str(tmp_path / "x.npz")), None).facts == {"duplicates": counts}


def test_the_share_of_texts_that_are_cut_is_told(tmp_path, tokenizer_file):
    (tmp_path / "train.csv").write_text("text,label\n" + "w1 w2 w3,a\nw2 w3,b\n" * 4)
    write_csv(tmp_path / "validation.csv", "ab", start=20)
    write_csv(tmp_path / "test.csv", "ab", start=30)
    data = load(DataConfig(name=str(tmp_path), max_length=2), tokenizer_file)
    assert data.facts["cut_share"] == 4 / 12
    assert data.notes == ("4 of 12 texts (33.3%) are longer than data.max_length and cut",)


def test_npz_images_and_features(tmp_path):
    data = load(DataConfig(name=write_npz(tmp_path / "x.npz")), None)
    assert data.classes == ("0", "1", "2", "3")
    assert data.train["image"].shape[1:] == (3, 2, 1)
    assert data.train["image"].dtype == np.uint8
    write_npz(tmp_path / "order.npz", y_train=np.array([10, 2] * 20))
    assert load(DataConfig(name=str(tmp_path / "order.npz")), None).classes == ("2", "10")
    scaled = load(DataConfig(name=str(tmp_path / "x.npz"), image_size=5), None)
    assert scaled.train["image"].shape[1:] == (5, 5, 1)
    write_npz(tmp_path / "x.npz", x_train=np.random.default_rng(0).normal(size=(40, 7)))
    data = load(DataConfig(name=str(tmp_path / "x.npz")), None)
    assert (data.train["features"].shape[1], data.train["features"].dtype) == (7, np.float32)


def test_image_folder(tmp_path):
    for i in range(20):
        folder = tmp_path / "train" / ("even" if i % 2 == 0 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 2), i, np.uint8)).save(folder / f"{i}.png")
    data = load(DataConfig(name=str(tmp_path)), None)
    assert data.classes == ("even", "odd")
    found = {}
    for split in (data.train, data.validation, data.test):
        found |= dict(zip(split["image"][:, 0, 0, 0].tolist(), split["label"].tolist(), strict=True))
    assert found == {i: i % 2 for i in range(20)}


def test_digits():
    data = load(DataConfig(name="digits", classes=("5", "6", "7", "8", "9"), train_examples=50), None)
    assert data.classes == ("5", "6", "7", "8", "9")
    assert np.bincount(data.train["label"]).tolist() == [10] * 5
    assert data.train["image"].shape == (50, 8, 8, 1)
    # A fifth of the 896 examples of these classes, then a fifth of the rest.
    assert (len(data.test["label"]), len(data.validation["label"])) == (179, 143)


def test_content_hash_is_that_of_the_bytes(tmp_path):
    data = load(DataConfig(name=write_npz(tmp_path / "x.npz")), None)
    digest = hashlib.sha256(b"('0', '1', '2', '3')")
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        count = len(split["label"])
        digest.update(f"('{name}', 'image', '|u1', ({count}, 3, 2, 1))".encode() + split["image"].tobytes())
        digest.update(f"('{name}', 'label', '<i4', ({count},))".encode() + split["label"].tobytes())
    assert data.content_hash == digest.hexdigest()


def cases(directory: Path) -> dict[str, tuple[dict, str]]:
    """Returns what is wrong -> (settings, what the message says)."""
    ten = write_csv(directory / "ten.csv", "ab" * 5)
    one = write_csv(directory / "one.csv", "a" * 10)
    two = write_csv(directory / "two.csv", "ab")
    unseen = directory / "unseen"
    unseen.mkdir()
    write_csv(unseen / "train.csv", "ab" * 5)
    write_csv(unseen / "test.csv", "abc")
    untrained = directory / "untrained"
    untrained.mkdir()
    write_csv(untrained / "test.csv", "ab")
    (directory / "empty").mkdir()
    (directory / "x.parquet").write_bytes(b"PAR1")
    (directory / "cut.npz").write_bytes(b"PK\x03\x04")
    labels = write_npz(directory / "labels.npz", x_test=np.zeros((1, 3, 2), np.uint8), y_test=np.array([9]))
    return {
        "unknown name": ({"name": "r9"}, "data.name is 'r9', allowed: .*tfds:NAME"),
        "near name": ({"name": "20newsgroup"}, "did you mean '20newsgroups'"),
        "missing file": ({"name": "some/where.csv"}, "'some/where.csv': no such file"),
        "unknown ending": ({"name": str(directory / "x.parquet")}, "is '.parquet', allowed: .csv, .jsonl, .npz, .tsv"),
        "empty directory": ({"name": str(directory / "empty")}, "holds no data"),
        "truncated npz": ({"name": str(directory / "cut.npz")}, "not a whole .npz"),
        "tfds not prepared": ({"name": "tfds:nothing"}, "not prepared"),
        "one class": ({"name": one}, "one class only, 'a'"),
        "one class kept": ({"name": ten, "classes": ("a",)}, "one class only"),
        "unknown class": ({"name": ten, "classes": ("a", "z")}, "data.classes is 'z', allowed: a, b"),
        "class of test alone": ({"name": str(unseen)}, "label 'c' of split test is out of range"),
        "label out of range": ({"name": labels}, "label '9' of split test is out of range"),
        "no train split": ({"name": str(untrained)}, "no train split, present: test"),
        "too many to train": ({"name": ten, "train_examples": 8}, "train_examples is 8, allowed: at most 7"),
        "validation takes all": ({"name": ten, "validation_examples": 8}, "take 8 of 8 .*allowed: at most 6"),
        "too few to split": ({"name": two}, "test would take 1 of 2 training examples, allowed: at most 0"),
        "no tokenizer": ({"name": ten, "tokenizer": "absent.json"}, "tokenizer absent.json: no such file"),
        "column": ({"name": ten, "text_column": "body"}, "no column 'body', present: text, label"),
    }


def test_bad_input_is_one_clear_line(tmp_path, tokenizer_file, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    for what, (settings, message) in cases(tmp_path).items():
        with pytest.raises(UserError, match=message) as caught:
            load(DataConfig(**settings), tokenizer_file)
        assert "\n" not in str(caught.value), what


def test_text_without_any_tokenizer(tmp_path):
    with pytest.raises(UserError, match="set data.tokenizer"):
        load(DataConfig(name=write_csv(tmp_path / "x.csv", "ab" * 5)), None)


def test_import_is_light():
    code = "import sys, finetune.data; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"tensorflow_datasets", "sklearn", "PIL", "pandas", "tokenizers"} & set(done.stdout.split())


@pytest.mark.assets
def test_r8_with_few_labels():
    tokenizer = assets.path("minilm") / "tokenizer.json"
    data = load(DataConfig(name="r8", train_examples=1500), tokenizer)
    assert data.classes == ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade")
    assert [len(split["label"]) for split in data[:3]] == [1500, 1097, 2189]
    assert data.train["input_ids"].shape == (1500, 128)
    # [CLS] opens and [SEP] closes every text.
    rows = np.arange(1500)
    assert (data.train["input_ids"][:, 0] == 101).all()
    assert (data.train["input_ids"][rows, data.train["length"] - 1] == 102).all()
