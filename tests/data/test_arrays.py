import numpy as np
import pytest

from finetune.data import arrays
from finetune.errors import UserError

GREY = np.arange(4 * 3 * 2).reshape(4, 3, 2)
Y = np.array([2, 10, 2, 0])


@pytest.mark.parametrize(
    "x, shape, dtype",
    [
        (GREY, (4, 3, 2, 1), np.uint8),
        (GREY[..., None].astype(np.uint8), (4, 3, 2, 1), np.uint8),
        (np.stack([GREY] * 3, axis=-1) / 7, (4, 3, 2, 3), np.float32),
        (GREY.reshape(4, 6) - 5, (4, 6), np.float32),
    ],
)
def test_kinds_of_arrays(tmp_path, x, shape, dtype):
    np.savez(tmp_path / "x.npz", x_train=x, y_train=Y.astype(np.uint8), x_test=x[:1], y_test=Y[:1])
    source = arrays.read(tmp_path / "x.npz")
    inputs, labels = source.splits["train"]
    assert (source.kind, list(source.splits), source.order) == ("array", ["train", "test"], ("0", "2", "10"))
    assert (inputs.shape, inputs.dtype, labels) == (shape, dtype, ["2", "10", "2", "0"])
    np.testing.assert_array_equal(inputs.reshape(x.shape), x.astype(dtype))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y_train": Y / 2}, "y_train .* is float64, allowed: whole numbers"),
        ({"y_train": Y - 1}, "label -1, allowed: 0 or more"),
        ({"y_train": Y[:3]}, r"shape \[3\], allowed: \[4\]"),
        ({"y_train": Y[:, None]}, r"shape \[4, 1\], allowed: \[4\]"),
        ({"y_train": None}, "lacks x_train or y_train, present: x_train"),
        ({"y_train": Y.astype(object)}, "plain arrays"),
        ({"x_train": GREY * 100}, "values 0 to 2300, allowed for whole numbers: 0 to 255"),
        ({"x_train": GREY - 1}, "values -1 to 22"),
        ({"x_train": np.full((4, 2), 1e300)}, "not finite"),
        ({"x_train": np.full((4, 2, 2), np.nan)}, "not finite"),
        ({"x_train": np.array(["a"] * 4)}, "x_train .* <U1 with 1 axes"),
        ({"x_train": np.zeros((0, 3, 2))}, r"shape \[0, 3, 2\]"),
        ({"x_held": GREY}, "array in .*'x_held', allowed: .*x_validation"),
        ({"x_test": GREY[:, :2], "y_test": Y}, r"x_train uint8 \[3, 2, 1\]; x_test uint8 \[2, 2, 1\]"),
        ({"x_test": GREY / 2, "y_test": Y}, "x_train uint8 .*; x_test float32"),
    ],
)
def test_bad_arrays(tmp_path, changes, message):
    held = {"x_train": GREY, "y_train": Y} | changes
    np.savez(tmp_path / "x.npz", **{name: value for name, value in held.items() if value is not None})
    with pytest.raises(UserError, match=message):
        arrays.read(tmp_path / "x.npz")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.95])
def test_truncated_file(tmp_path, share):
    np.savez_compressed(tmp_path / "x.npz", x_train=GREY, y_train=Y)
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match="not a whole .npz"):
        arrays.read(tmp_path / "x.npz")


def test_any_damaged_byte_is_an_error_of_the_user_or_harmless(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x_train=GREY, y_train=Y)
    whole = (tmp_path / "x.npz").read_bytes()
    refused = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        (tmp_path / "x.npz").write_bytes(damaged)
        try:
            inputs, labels = arrays.read(tmp_path / "x.npz").splits["train"]
        except UserError:
            refused += 1
        else:
            # A byte of a field that readers pass over, such as a time.
            assert (inputs[..., 0] == GREY).all()
            assert labels == ["2", "10", "2", "0"]
    assert refused > len(whole) / 2


def test_spellings_of_splits_and_a_test_split_without_labels(tmp_path):
    np.savez(tmp_path / "x.npz", x_train=GREY, y_train=Y, x_val=GREY[:1], y_val=Y[:1], x_test=GREY[:2])
    source = arrays.read(tmp_path / "x.npz")
    assert {split: e.labels for split, e in source.splits.items()} == {
        "train": ["2", "10", "2", "0"],
        "validation": ["2"],
    }
    assert source.notes[0].startswith(f"x_test of {tmp_path / 'x.npz'} has no labels: it is not scored")
    np.savez(tmp_path / "x.npz", x_train=GREY, y_train=Y, x_val=GREY, x_dev=GREY)
    with pytest.raises(UserError, match="holds x_validation under two names, one of them 'x_val'"):
        arrays.read(tmp_path / "x.npz")
