"""What a stranger wrote is refused, or does no harm: weights, archives, data sets, images, names."""

import ast
import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

import finetune
from finetune import assets
from finetune.assets import Asset, Member, Wheel
from finetune.config import DataConfig, ModelConfig
from finetune.data import arrays, images, tfds
from finetune.errors import UserError
from finetune.export import card
from finetune.models.weights import augreg, huggingface, pretrained
from finetune.storage import checkpoint, records

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def safetensors(header, data=bytes(8), length=None):
    """Returns the bytes of a .safetensors file, its header as given."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


MALICIOUS = {
    "length beyond the file": safetensors({"x": F32}, length=2**20),
    "length that overflows": safetensors({"x": F32}, length=2**64 - 1),
    "length of nothing": b"\x01",
    "header that is no JSON": safetensors(b"{{{{{{{{"),
    "header without end": safetensors(b'{"x":' * 20_000),
    "overlapping offsets": safetensors({"x": F32, "y": F32 | {"data_offsets": [4, 12]}}, bytes(12)),
    "the same bytes twice": safetensors({"x": F32, "y": F32}),
    "a hole": safetensors({"x": F32, "y": F32 | {"data_offsets": [16, 24]}}, bytes(24)),
    "offsets beyond the file": safetensors({"x": F32 | {"shape": [2**20], "data_offsets": [0, 2**22]}}),
    "offsets backwards": safetensors({"x": F32 | {"data_offsets": [8, 0]}}),
    "negative offsets": safetensors({"x": F32 | {"data_offsets": [-8, 0]}}),
    "absurd shape": safetensors({"x": F32 | {"shape": [2**40, 2**40]}}),
    "shape that overflows to fit": safetensors({"x": F32 | {"shape": [2**63, 2, 2]}}),
    "negative shape": safetensors({"x": F32 | {"shape": [-1, -2]}}),
    "unknown dtype": safetensors({"x": F32 | {"dtype": "O"}}),
}


@pytest.mark.parametrize("content", MALICIOUS.values(), ids=MALICIOUS)
def test_malicious_safetensors(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="cannot read .*model.safetensors as safetensors"):
        huggingface.parameters(tmp_path / "model.safetensors")


def test_that_file_is_read_when_it_is_sound(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(safetensors({"x": F32}, struct.pack("<2f", 1, 2)))
    np.testing.assert_array_equal(huggingface.parameters(tmp_path / "model.safetensors")["x"], [1, 2])


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.fixture
def payload(tmp_path):
    """A pickle that acts, and the file it makes."""
    content, file = pickle.dumps(Payload(tmp_path / "harm")), tmp_path / "harm"
    pickle.loads(content)  # noqa: S301  # it does act
    file.unlink()
    return content, file


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "weights.pth", "weights.pkl", "weights.ckpt"])
def test_pickled_weights_are_refused(tmp_path, payload, name):
    (tmp_path / name).write_bytes(payload[0])
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UserError, match=f"{name} is a pickle, .*allowed: .safetensors, .npz; convert it"):
            pretrained.architecture(ModelConfig(pretrained=str(path)))
    assert not payload[1].exists()


@pytest.mark.parametrize(
    "read, name",
    [
        (augreg.parameters, "cls"),
        (lambda path: arrays.read(path), "x_train"),
        (arrays.read_inputs, "x"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".pkl", ""])
def test_pickles_inside_npz_are_not_read(tmp_path, payload, read, name, suffix):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr(name + suffix, header.getvalue() + payload[0] if suffix == ".npy" else payload[0])
        archive.writestr("y_train.npy", header.getvalue() + payload[0])
    with pytest.raises(UserError):
        read(tmp_path / "x.npz")
    assert not payload[1].exists()


@pytest.mark.parametrize("read", [augreg.parameters, arrays.read, arrays.read_inputs])
def test_an_archive_that_unpacks_to_more_than_memory_is_not_unpacked(tmp_path, monkeypatch, read):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(10**6))
    assert (tmp_path / "x.npz").stat().st_size < 10**5
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10**6}))
    monkeypatch.setattr(np.lib.format, "read_array", lambda *arguments, **settings: pytest.fail("was unpacked"))
    with pytest.raises(UserError, match=r"x.npz take 0.0 GB, allowed: the 0.0 GB of memory that are free"):
        read(tmp_path / "x.npz")


def test_an_array_that_claims_to_be_huge_is_not_allocated(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**45,)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(UserError, match="x.npz"):
        arrays.read_inputs(tmp_path / "x.npz")
    with pytest.raises(UserError, match="x.npz"):
        augreg.parameters(tmp_path / "x.npz")


def packaged(monkeypatch, tmp_path, entries, member):
    """Makes an asset of one member, whose package holds `entries` and has the expected hash."""
    file = tmp_path / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    package = Wheel("toy==1.0", assets.sha256(file), file.stat().st_size)
    monkeypatch.setattr(assets, "ASSETS", {"toy": Asset("a toy", "MIT", package, (member,))})
    monkeypatch.setattr(
        assets, "_download", lambda requirement, into: (into / file.name).write_bytes(file.read_bytes()) * 0
    )
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))


def link(name):
    """Returns the entry of a symbolic link."""
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    return entry


SHA256_OF_A = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"  # of the letter a


@pytest.mark.parametrize(
    "entries, name",
    [
        ([("../../escaped", b"a")], "../../escaped"),
        ([("/escaped", b"a"), ("x/../../escaped", b"b")], "/escaped"),
        ([("x/escaped", b"a"), (link("x/link"), b"/etc/passwd")], "x/escaped"),
    ],
)
def test_archives_are_not_followed_outside(tmp_path, monkeypatch, entries, name):
    packaged(monkeypatch, tmp_path, entries, Member(name, SHA256_OF_A, 1))
    assert assets.path("toy") == tmp_path / "cache" / "toy"
    written = [path for path in (tmp_path / "cache").rglob("*") if not path.is_dir()]
    assert written == [tmp_path / "cache" / "toy" / "escaped"]
    assert not written[0].is_symlink()
    assert not list(tmp_path.glob("escaped"))


@pytest.mark.parametrize("content", [bytes(10**8), b"/etc/passwd"])
def test_archives_do_not_unpack_to_more_than_was_pinned(tmp_path, monkeypatch, content):
    entry = link("toy/weights") if content.startswith(b"/") else "toy/weights"
    packaged(monkeypatch, tmp_path, [(entry, content)], Member("toy/weights", SHA256_OF_A, 1))
    read = []
    monkeypatch.setattr(
        zipfile.ZipExtFile,
        "read",
        lambda self, size=-1, read_=zipfile.ZipExtFile.read: read.append(size) or read_(self, size),
    )
    with pytest.raises(UserError, match=f"sha256 of toy/weights is .*, expected {SHA256_OF_A}: nothing was kept"):
        assets.path("toy")
    assert read == [2]
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


OWN, FOREIGN = "tensorflow_datasets.core.features.features_dict.FeaturesDict", "harmful.Feature"
FEATURES = {
    "as written now": {"pythonClassName": OWN, "featuresDict": {"features": {"x": {"pythonClassName": FOREIGN}}}},
    "as written before": {"type": OWN, "content": {"x": {"type": FOREIGN, "content": {}}}},
    "JSON inside": {
        "type": OWN,
        "proto_cls": "tensorflow_datasets.FeaturesDict",
        "content": json.dumps({"features": {"x": {"pythonClassName": FOREIGN}}}),
    },
    "at the top": {"pythonClassName": FOREIGN},
}


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_a_data_set_cannot_name_a_module_to_import(tmp_path, monkeypatch, features):
    (tmp_path / "harmful.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "harmful", raising=False)
    directory = tmp_path / "sets" / "toy" / "1.0.0"
    directory.mkdir(parents=True)
    (directory / "dataset_info.json").write_text('{"name": "toy", "version": "1.0.0", "splits": []}')
    (directory / "features.json").write_text(json.dumps(features))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))
    for read, name in ((tfds.read_directory, directory), (tfds.read_name, "toy"), (tfds.read_name, "toy:1.0.0")):
        with pytest.raises(UserError, match="class 'harmful.Feature', allowed: classes of tensorflow_datasets"):
            read(name, DataConfig())
    assert not (tmp_path / "harm").exists()


def png_of(width, height):
    """Returns a PNG that claims a size and holds nothing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize("edge", [10_000, 60_000, 2**31 - 1])
def test_an_image_that_claims_to_be_huge_is_not_decoded(edge):
    with pytest.raises(UserError, match="image 0 is not an image that can be read"):
        images.decode([png_of(edge, edge)], 8)


def test_an_image_cannot_start_a_program(monkeypatch):
    postscript = io.BytesIO()
    Image.new("L", (8, 8)).save(postscript, "EPS")
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **settings: pytest.fail("a program was started"))
    monkeypatch.setattr(subprocess, "check_call", lambda *arguments, **settings: pytest.fail("a program was started"))
    with pytest.raises(UserError, match="image 0 is not an image that can be read"):
        images.decode([postscript.getvalue()], 0)


def test_an_id_cannot_be_a_path(tmp_path):
    (tmp_path / "study" / "checkpoints" / "trials" / "good").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    rows = [
        {"id": name, "best": {"value": 1.0}} for name in ("good", "../../../elsewhere", str(tmp_path / "elsewhere"))
    ]
    rest = dict.fromkeys(("hparams", "status", "metrics", "steps", "reason"))
    records.append(tmp_path / "study" / "trials.jsonl", [rest | row for row in rows])
    assert [identity for identity, _ in checkpoint.kept(tmp_path / "study")] == ["good"]


@pytest.mark.parametrize(
    "text, shown",
    [
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("a\n\n# b | c", r"a \# b \| c"),
        ("![x](http://x) `y`", r"!\[x\](http://x) \`y\`"),
        ("&lt;b&gt; learning_rate", "&amp;lt;b&amp;gt; learning_rate"),
    ],
)
def test_text_in_a_card_is_only_shown(text, shown):
    assert card._plain(text) == shown


FORBIDDEN = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "torch"}


def test_the_package_executes_nothing_it_reads():
    files = sorted(Path(finetune.__file__).parent.rglob("*.py"))
    assert len(files) > 30
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            where = f"{file.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in FORBIDDEN | {"os.system", "os.popen"}, where
                for keyword in node.keywords:
                    assert (keyword.arg, ast.unparse(keyword.value)) not in {
                        ("shell", "True"),
                        ("allow_pickle", "True"),
                    }, where
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = getattr(node, "module", None) or ""
            for name in [module, *names]:
                assert name.split(".")[0] not in FORBIDDEN_MODULES, where
            if "runpy" in names:  # the config file, which is the user's own Python
                assert file.name == "cli.py"
            if "subprocess" in names:  # pip, with a list of arguments and no shell
                assert file.name == "assets.py"
