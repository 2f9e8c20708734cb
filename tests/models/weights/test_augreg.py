import io
import logging
import zipfile

import numpy as np
import pytest

from finetune.errors import UserError
from finetune.models.weights import augreg


@pytest.fixture
def saved(tmp_path, vit_arrays):
    """Returns a function that writes the arrays, with some changed or (None) removed, and returns the path."""

    def save(**changes):
        arrays = {name: array for name, array in {**vit_arrays, **changes}.items() if array is not None}
        np.savez(tmp_path / "vit.npz", **arrays)
        return tmp_path / "vit.npz"

    return save


def test_architecture(saved):
    assert augreg.architecture(saved()) == {
        "model": "vit",
        "width": 6,
        "depth": 2,
        "heads": 3,
        "mlp_width": 10,
        "patch_size": 2,
        "epsilon": 1e-6,
    }


def test_parameters(saved, vit_arrays, caplog):
    with caplog.at_level(logging.INFO):
        found = augreg.parameters(saved())
    assert not any(path.startswith(("head", "pre_logits")) for path in found)
    assert "head/kernel" in caplog.text
    position = vit_arrays["Transformer/posembed_input/pos_embedding"][0]
    np.testing.assert_array_equal(found["embeddings/class_token"], vit_arrays["cls"][0, 0] + position[0])
    np.testing.assert_array_equal(found["embeddings/position"][1, 0], position[1 + 2])
    query = vit_arrays["Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query/kernel"]
    np.testing.assert_array_equal(found["block_1/attention/query/kernel"][:, 2 * 2 + 1], query[:, 2, 1])
    output = vit_arrays["Transformer/encoderblock_1/MultiHeadDotProductAttention_1/out/kernel"]
    np.testing.assert_array_equal(found["block_1/attention/output/kernel"][2 * 2 + 1], output[2, 1])


@pytest.mark.parametrize("name", ["embedding/kernel", "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel"])
@pytest.mark.parametrize("value", [None, np.float32(1)])
def test_architecture_of_something_else(saved, name, value):
    with pytest.raises(UserError, match=f"holds no {name} with"):
        augreg.architecture(saved(**{name: value}))


@pytest.mark.parametrize(
    "changes",
    [
        {"Transformer/posembed_input/pos_embedding": np.ones((1, 6, 6), np.float32)},
        {"Transformer/posembed_input/pos_embedding": np.ones((1, 5, 4), np.float32)},
        {"Transformer/posembed_input/pos_embedding": np.float32(1)},
        {"Transformer/posembed_input/pos_embedding": np.ones((1, 5, 6), np.int32)},
        {"cls": np.ones((1, 6), np.float32)},
        {"cls": np.full((1, 1, 6), "a")},
    ],
)
def test_positions_that_are_no_square_grid(saved, changes):
    with pytest.raises(UserError, match=r"allowed: floating point \[1, 1 \+ side², width\]"):
        augreg.parameters(saved(**changes))


@pytest.mark.parametrize("value", [np.float32(1), np.ones(3, np.float32)])
def test_kernels_of_odd_shapes_are_left_to_the_comparison(saved, value):
    name = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"
    assert augreg.parameters(saved(**{name: value}))["block_0/attention/query/kernel"].shape == value.shape


def _single_array(content):
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


def _objects(content):
    file = io.BytesIO()
    np.savez(file, cls=np.array([{}], dtype=object))
    return file.getvalue()


def _flipped(content):
    return content[:400] + bytes(255 - byte for byte in content[400:700]) + content[700:]


def _huge(content):
    file = io.BytesIO()
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cls.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[: len(content) // 2], _single_array, _objects, _flipped, _huge],
    ids=["empty", "truncated", "single array", "objects", "flipped", "huge"],
)
def test_damaged_file(saved, damage):
    path = saved()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"cannot read .*vit\.npz as \.npz") as caught:
        augreg.parameters(path)
    assert "\n" not in str(caught.value)
