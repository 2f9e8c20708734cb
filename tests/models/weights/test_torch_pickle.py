"""Files are written here by Python's own pickle module, as torch.save of PyTorch 1.5 wrote them."""

import io
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from finetune.errors import UserError
from finetune.models.weights import torch_pickle

NUMBERS = np.arange(60, dtype=np.float32) / 7


class Storage:
    """In place of a storage of torch: the pickler asks for its persistent id."""

    def __init__(self, key, numbers):
        self.key, self.numbers = key, numbers


class Tensor:
    """In place of a tensor: pickled by the call that torch uses."""

    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce_ex__(self, protocol):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        kind = "FloatStorage" if value.numbers.dtype == np.float32 else "LongStorage"
        return ("storage", getattr(sys.modules["torch"], kind), value.key, "cpu", len(value.numbers), None)


@pytest.fixture(autouse=True)
def torch(monkeypatch):
    """The names that such a file holds, so that they can be pickled without torch."""
    module, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for owner, name in ((module, "FloatStorage"), (module, "LongStorage"), (utils, "_rebuild_tensor_v2")):
        kind = type(name, (), {"__module__": owner.__name__})
        setattr(owner, name, kind)
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def parts(content, storages, magic=0x1950A86A20F9469CFC6C, keys=None):
    """Returns the pieces of a file: five pickles, then each storage behind its count."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    keys = sorted(each.key for each in storages) if keys is None else keys
    pieces = []
    for each in (magic, 1001, machine, content, keys):
        stream = io.BytesIO()
        Pickler(stream, protocol=2).dump(each)
        pieces.append(stream.getvalue())
    for each in sorted(storages, key=lambda storage: storage.key):
        pieces.append(len(each.numbers).to_bytes(8, "little") + each.numbers.tobytes())
    return pieces


def read(directory, pieces):
    (directory / "weights.pth").write_bytes(b"".join(pieces))
    return torch_pickle.read(directory / "weights.pth")


def state(shared):
    """Returns tensors as a module's state has them: in order, sharing storages, with versions as an attribute."""
    content = OrderedDict(
        whole=Tensor(shared, 0, (3, 4, 5), (20, 5, 1)),
        turned=Tensor(shared, 0, (5, 3), (1, 20)),
        part=Tensor(shared, 7, (2, 2), (10, 1)),
        scalar=Tensor(shared, 59, (), ()),
    )
    content._metadata = OrderedDict({"": {"version": 1}})
    return content


def test_arrays_are_read_as_they_were_written(tmp_path):
    shared, counts = Storage("1", NUMBERS), Storage("0", np.array([2**40], np.int64))
    content = state(shared)
    content["count"] = Tensor(counts, 0, (), ())
    found = read(tmp_path, parts(content, [shared, counts]))
    assert list(found) == ["whole", "turned", "part", "scalar", "count"]
    np.testing.assert_array_equal(found["whole"], NUMBERS.reshape(3, 4, 5))
    np.testing.assert_array_equal(found["turned"], NUMBERS.reshape(3, 4, 5)[:, 0].T)
    np.testing.assert_array_equal(found["part"], NUMBERS[[[7, 8], [17, 18]]])
    assert found["scalar"].shape == found["count"].shape == ()
    assert (found["scalar"], found["count"]) == (NUMBERS[59], 2**40)
    assert {array.dtype.name for array in found.values()} == {"float32", "int64"}


class Act:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("place", range(5))
def test_nothing_in_a_file_is_run(tmp_path, place):
    shared = Storage("0", NUMBERS)
    pieces, stream = parts(state(shared), [shared]), io.BytesIO()
    Pickler(stream, protocol=2).dump({"weight": Act(tmp_path / "harm")})
    pieces[place] = stream.getvalue()
    with pytest.raises(UserError, match="it names .*, which no tensor needs"):
        read(tmp_path, pieces)
    assert not (tmp_path / "harm").exists()
    pickle.loads(stream.getvalue())  # noqa: S301  # it does act
    assert (tmp_path / "harm").exists()


def one(offset, shape, strides):
    shared = Storage("0", NUMBERS)
    return parts({"x": Tensor(shared, offset, shape, strides)}, [shared])


NESTED = ()
for _ in range(64):
    NESTED = (NESTED, NESTED)

# (name, words of the reason): pieces of the file
MALICIOUS = {
    ("empty", "exhausted before seeing STOP"): lambda: [b""],
    ("zip archive", "no newline"): lambda: [b"PK\x03\x04", bytes(100)],
    ("another number first", "first numbers"): lambda: parts({}, [], magic=5),
    ("no tensors", "something else"): lambda: parts([1, 2], []),
    ("a dictionary of numbers", "something else"): lambda: parts({"x": 3}, []),
    ("a name that is a number", "a key that is no text"): lambda: parts({3: 3}, []),
    ("beyond its storage", "lies outside"): lambda: one(50, (11,), (1,)),
    ("a negative place", "lies outside"): lambda: one(-1, (2,), (1,)),
    ("a negative stride", "lies outside"): lambda: one(10, (2, 3), (-1, 1)),
    ("an axis of no entries", "lies outside"): lambda: one(0, (0,), (1,)),
    ("one number, shown a million times", "lies outside"): lambda: one(0, (10**6,), (0,)),
    ("a stride beyond all arrays", "lies outside"): lambda: one(0, (2,), (2**70,)),
    ("an axis without stride", "shorter"): lambda: one(0, (2, 3), (1,)),
    ("a size that is a text", "a tensor in another way"): lambda: one(0, ("2",), (1,)),
    ("storages without tensors", "not those of its tensors"): lambda: parts({}, [Storage("0", NUMBERS)]),
    ("a storage of another name", "not those of its tensors"): lambda: parts(
        state(Storage("0", NUMBERS)), [Storage("1", NUMBERS)]
    ),
    ("a storage twice", "not those of its tensors"): lambda: [*one(0, (1,), (1,))[:4], pickle.dumps(["0", "0"], 2)],
    ("keys that take for ever to hash", "no names"): lambda: parts(state(Storage("0", NUMBERS)), [], keys=[NESTED]),
    ("names that take for ever to hash", "a key that is no text"): lambda: [
        *parts({}, [])[:3], b"\x80\x02})" + b"q\x01h\x01\x86" * 64 + b"K\x01s.",
    ],
    ("numbers behind the end", "561 bytes long where 560"): lambda: [*one(0, (1,), (1,)), b"\0"],
    ("stack of nothing", "empty list"): lambda: [b"\x80\x02."],
    ("memory of nothing", "5"): lambda: [b"\x80\x02h\x05."],
    ("mark of nothing", "empty list"): lambda: [b"\x80\x02t."],
    ("text without end", "only 3 remain"): lambda: [b"\x80\x02X\xff\xff\xff\x7fabc"],
}  # fmt: skip


@pytest.mark.parametrize("case", MALICIOUS, ids=lambda case: case[0])
def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path, case):
    told = f"cannot read .*weights.pth as tensors of PyTorch: .*{case[1]}.*; allowed: a dictionary of float32 or int64"
    with pytest.raises(UserError, match=told):
        read(tmp_path, MALICIOUS[case]())


def test_a_file_cut_anywhere_is_refused(tmp_path):
    shared = Storage("0", NUMBERS)
    whole = b"".join(parts(state(shared), [shared]))
    for length in range(0, len(whole), 7):
        with pytest.raises(UserError, match=r"weights.pth"):
            read(tmp_path, [whole[:length]])
