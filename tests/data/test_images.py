import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.data import images
from finetune.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 4), np.uint8)
COLOUR = RNG.integers(0, 256, (5, 4, 3), np.uint8)


def save(directory: Path, name: str, pixels: np.ndarray) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(directory / name)
    return directory / name


def test_folder(tmp_path):
    files = [save(tmp_path / "train" / name, f"{i}.png", GREY) for name in ("ant", "zebra") for i in range(2)]
    files.append(save(tmp_path / "test" / "ant", "0.bmp", GREY))
    (tmp_path / "train" / "ant" / ".hidden").write_text("")
    (tmp_path / "README.txt").write_text("")
    source = images.read(tmp_path)
    assert (source.kind, set(source.splits)) == ("image", {"train", "test"})
    assert source.splits["train"] == (files[:4], ["ant", "ant", "zebra", "zebra"])
    assert source.splits["test"] == (files[4:], ["ant"])


def test_grey_pixels_as_stored(tmp_path):
    stored = io.BytesIO()
    Image.fromarray(GREY).save(stored, "PNG")
    pixels = images.decode([save(tmp_path, "a.png", GREY), stored.getvalue()], 0)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (2, 5, 4, 1))
    np.testing.assert_array_equal(pixels[..., 0], [GREY, GREY])


def test_one_colour_image_makes_all_rgb(tmp_path):
    alpha = np.dstack([COLOUR, np.full((5, 4), 9, np.uint8)])
    files = [save(tmp_path, f"{i}.png", pixels) for i, pixels in enumerate([COLOUR, alpha, GREY])]
    pixels = images.decode(files, 0)
    np.testing.assert_array_equal(pixels, [COLOUR, COLOUR, np.dstack([GREY] * 3)])


def test_sizes(tmp_path):
    files = [save(tmp_path, "a.png", np.full((5, 4), 9, np.uint8)), save(tmp_path, "b.png", GREY[:4])]
    with pytest.raises(UserError, match=r"a\.png is 4 x 5, .*b\.png is 4 x 4; set data.image_size"):
        images.decode(files, 0)
    pixels = images.decode(files, 4)
    np.testing.assert_array_equal(pixels[0], np.full((4, 4, 1), 9))
    np.testing.assert_array_equal(pixels[1, ..., 0], GREY[:4])


def test_resize_of_arrays():
    # Halving averages under a triangle of weights 1, 3, 3, 1; at an edge 3, 3, 1, whatever is outside left out.
    ramp = np.broadcast_to(np.array([0, 70, 140, 210], np.float32), (1, 4, 4))
    expected = [(0 * 3 + 70 * 3 + 140) / 7, (70 + 140 * 3 + 210 * 3) / 7]
    both = np.stack([ramp, ramp * 0 + 3], axis=-1)
    np.testing.assert_allclose(images.resize(both, 2)[0, 0], [[expected[0], 3], [expected[1], 3]], rtol=1e-6)
    small = images.resize(both.astype(np.uint8), 2)
    assert (small.dtype, small.shape) == (np.uint8, (1, 2, 2, 2))
    np.testing.assert_array_equal(small[0, 0, :, 0], [50, 160])


def test_unreadable_images(tmp_path):
    whole = save(tmp_path, "a.png", GREY).read_bytes()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.png", "cut.png", "empty.png", "absent.png"):
        with pytest.raises(UserError, match=rf"{name} is not an image") as caught:
            images.decode([tmp_path / "a.png", tmp_path / name], 0)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="image 1 is not an image"):
        images.decode([whole, b"junk"], 0)
    with pytest.raises(UserError, match=r"deep\.png has pixels of mode I;16, allowed: 8 bits"):
        images.decode([save(tmp_path, "deep.png", GREY.astype(np.uint16) * 100)], 0)


def test_bad_folders(tmp_path):
    with pytest.raises(UserError, match="holds no data"):
        images.read(tmp_path)
    (tmp_path / "train" / "ant").mkdir(parents=True)
    with pytest.raises(UserError, match=r"train has no images, allowed: .*CLASS/FILE"):
        images.read(tmp_path)
    save(tmp_path / "train" / "ant", "a.png", GREY)
    (tmp_path / "valid").mkdir()
    with pytest.raises(UserError, match="'valid', allowed: test, train, validation; did you mean 'validation'"):
        images.read(tmp_path)
