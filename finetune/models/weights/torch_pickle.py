"""Arrays out of the files that torch.save wrote before PyTorch 1.6, without unpickling anything.

Such a file is five pickles (a magic number, a version, facts of the machine that wrote it, the object, and the names of
its storages) and then the numbers of each storage. Here a pickle is a list of instructions that are looked at one by
one: those that a dictionary of tensors needs are carried out on plain values, and any other ends the reading. A name
of Python code is compared with four names and never looked up, so nothing in a file can run.
"""

import io
import math
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finetune.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_TYPES: dict[str, np.dtype[Any]] = {"torch FloatStorage": np.dtype("<f4"), "torch LongStorage": np.dtype("<i8")}
_DICTIONARY, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_NAMES = frozenset((*_TYPES, _DICTIONARY, _TENSOR))
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError)


class _Name(NamedTuple):
    """In place of the code that a pickle names."""

    name: str


class _Storage(NamedTuple):
    """In place of a storage: its key in the file, the type of its numbers and how many there are."""

    key: str
    dtype: np.dtype[Any]
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns {name: array} of the dictionary of tensors in `path`; float32 or int64, as stored.

    Raises UserError for a file that is damaged, holds anything else, or is of another format.
    """
    try:
        content = path.read_bytes()
        return _read(content)
    except _UNREADABLE as error:
        raise UserError(
            f"cannot read {path} as tensors of PyTorch: {error or type(error).__name__}; allowed: a dictionary of "
            "float32 or int64 tensors, as torch.save wrote it before PyTorch 1.6"
        ) from None


def _read(content: bytes) -> dict[str, np.ndarray]:
    stream = io.BytesIO(content)
    magic, version, machine = (_Machine().run(stream) for _ in range(3))
    if (magic, version) != (_MAGIC, _VERSION) or machine.get("little_endian") is not True:
        raise ValueError("its first numbers are not those of the format")
    tensors, keys = _Machine().run(stream), _Machine().run(stream)
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise ValueError("its storages have no names")
    if type(tensors) is not dict or any(type(tensor) is not _Tensor for tensor in tensors.values()):
        raise ValueError("it holds something else")
    storages = {each.storage for each in tensors.values()}
    if sorted(each.key for each in storages) != sorted(keys):
        raise ValueError("its storages are not those of its tensors")
    numbers = _numbers(content, stream.tell(), {each.key: each for each in storages}, keys)
    return {name: _array(tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}


def _numbers(content: bytes, start: int, storages: dict[str, _Storage], keys: list[str]) -> dict[str, np.ndarray]:
    """Returns the numbers [size] of each storage: behind a count of 8 bytes, in the order of `keys`."""
    found = {}
    for key in keys:
        storage = storages[key]
        if int.from_bytes(content[start : start + 8], "little") != storage.size:
            raise ValueError(f"storage {key!r} has another size than its tensors say")
        found[key] = np.frombuffer(content, storage.dtype, storage.size, start + 8)
        start += 8 + storage.size * storage.dtype.itemsize
    if start != len(content):
        raise ValueError(f"it is {len(content)} bytes long where {start} were expected")
    return found


def _array(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    _, offset, shape, strides = tensor
    reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    inside = min(offset, *strides, 0) == 0 and min(shape, default=1) > 0 and offset + reach < len(numbers)
    if not inside or math.prod(shape) > len(numbers):
        raise ValueError(f"a tensor of shape {list(shape)} lies outside its storage")
    view = np.lib.stride_tricks.as_strided(
        numbers[offset:], shape, [stride * numbers.itemsize for stride in strides], writeable=False
    )
    return np.ascontiguousarray(view).reshape(shape)  # a scalar keeps its zero axes


class _Machine:
    """Carries out one pickle's instructions on a stack, as the pickletools module of Python documents them."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memory: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """Returns what the pickle at the place of `stream` describes, and leaves `stream` behind it."""
        for instruction, argument, _ in pickletools.genops(stream):
            if instruction.name not in _INSTRUCTIONS:
                raise ValueError(f"it asks for {instruction.name}, which no tensor needs")
            _INSTRUCTIONS[instruction.name](self, argument)
        return self._stack.pop()

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def push_name(self, name: str) -> None:
        if name not in _NAMES:
            raise ValueError(f"it names {name!r}, which no tensor needs")
        self.push(_Name(name))

    def mark(self, _: None) -> None:
        self._marks.append(len(self._stack))

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        taken, self._stack[start:] = self._stack[start:], []
        return taken

    def keep(self, place: int) -> None:
        self._memory[place] = self._stack[-1]

    def recall(self, place: int) -> None:
        self.push(self._memory[place])

    def tuple_since_mark(self, _: None) -> None:
        self.push(tuple(self._since_mark()))

    def tuple_of(self, size: int) -> None:
        self.push(tuple(self._stack.pop() for _ in range(size))[::-1])

    def append(self, _: None) -> None:
        value = self._stack.pop()
        self._top(list).append(value)

    def append_all(self, _: None) -> None:
        values = self._since_mark()
        self._top(list).extend(values)

    def set_item(self, _: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._fill([key], [value])

    def set_items(self, _: None) -> None:
        values = self._since_mark()
        self._fill(values[::2], values[1::2])

    def _fill(self, keys: list[Any], values: list[Any]) -> None:
        if any(type(key) is not str for key in keys):  # a key of nested tuples may take for ever to hash
            raise ValueError("it has a key that is no text")
        self._top(dict).update(zip(keys, values, strict=True))

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise ValueError(f"it fills a {type(self._stack[-1]).__name__} as a {kind.__name__}")
        return self._stack[-1]

    def drop_state(self, _: None) -> None:
        """Passes over the attributes of a dictionary: they are versions of modules, and no tensors."""
        self._stack.pop()
        self._top(dict)

    def storage(self, _: None) -> None:
        kind, dtype, key, _, size, view = self._stack.pop()
        if kind != "storage" or type(key) is not str or type(size) is not int or size < 0 or view is not None:
            raise ValueError("it describes a storage in another way")
        self.push(_Storage(key, _TYPES[dtype.name], size))

    def call(self, _: None) -> None:
        """Makes what stands for one of the two calls that may occur: a dictionary, or a tensor."""
        arguments, called = self._stack.pop(), self._stack.pop()
        if called == _Name(_DICTIONARY) and arguments == ():
            self.push({})
        elif called == _Name(_TENSOR):
            self.push(_tensor(*arguments[:4]))
        else:
            raise ValueError("it calls what no tensor needs")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    counts = (offset, *shape, *strides)
    if type(storage) is not _Storage or any(type(count) is not int for count in counts):
        raise ValueError("it describes a tensor in another way")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "STOP"), lambda machine, _: None),
    **dict.fromkeys(("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"), _Machine.push),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.keep),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.recall),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": _Machine.tuple_since_mark,
    "MARK": _Machine.mark,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.append_all,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.push_name,
    "BINPERSID": _Machine.storage,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.drop_state,
}
