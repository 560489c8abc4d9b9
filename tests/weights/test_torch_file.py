"""Reading PyTorch's checkpoints without torch, and refusing what is none."""

import argparse
import os
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest

import hostile
from cait.errors import CaitError
from cait.weights.torch_file import _rebuild_tensor, _Storage, read_torch_file
from project import GOLDEN

FB_STYLE = GOLDEN / "tiny_fb_style.pth"


def test_prefix_and_wrapping_are_taken_off():
    from safetensors.numpy import load_file

    tensors, same = read_torch_file(FB_STYLE), load_file(GOLDEN / "tiny_timm_style.safetensors")
    assert set(tensors) == set(same) and len(tensors) == 98
    for name, value in tensors.items():
        assert value.dtype == np.float32 and np.array_equal(value, same[name]), name


def write_zip(path, pickled, **files):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in files.items():
            archive.writestr(f"archive/{name}", content)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def test_code_in_the_pickle_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_zip("evil.pth", pickle.dumps({"model": Evil()}))
    with pytest.raises(CaitError, match=r"evil.pth: .*it asks for posix.mkdir, and only tensors"):
        read_torch_file("evil.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "pickled",
    [b"cbuiltins\neval\n.", b"cargparse\nAction\n)R.", b"ctorch.nn.modules.linear\nLinear\n.", b"ctorch\nload\n."],
)
def test_every_other_global_is_refused(tmp_path, pickled):
    write_zip(tmp_path / "a.pth", pickled)
    with pytest.raises(CaitError, match="only tensors and containers are loaded"):
        read_torch_file(tmp_path / "a.pth")


# What the authors' main.py saves beside the weights: its command line, which torch.save pickles by protocol 2.
SETTINGS = argparse.Namespace(model="cait_XXS24_224", lr=5e-4, opt_betas=None, decay_rate=0.1, aa="rand", resume=["a"])


def with_beside(source, target, name, instructions):
    """Copies a checkpoint and puts the value of these instructions beside what it holds."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as changed:
        for info in archive.infolist():
            data = archive.read(info)
            if info.filename.endswith("/data.pkl"):
                data = data.removesuffix(b".") + hostile.ops(name) + instructions + b"s."
            changed.writestr(info.filename, data)


def test_the_command_line_beside_the_weights_is_left_out(tmp_path, monkeypatch):
    instructions = hostile.ops(SETTINGS)
    # Not `__new__`: Python does not take it back as it was.
    monkeypatch.setattr(argparse, "Namespace", lambda *_: pytest.fail("an object of the file was made"))
    assert b"cargparse\nNamespace\n" in instructions and b"\x81" in instructions  # a name, and NEWOBJ
    with_beside(FB_STYLE, tmp_path / "a.pth", "args", instructions)
    found, expected = read_torch_file(tmp_path / "a.pth"), read_torch_file(FB_STYLE)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name


@pytest.mark.parametrize(
    "value, words",
    [
        (argparse.Namespace(output_dir=pathlib.PurePosixPath("a")), "it asks for pathlib"),
        (argparse.Namespace(hook=os.getcwd), r"it asks for (posix|nt)\.getcwd"),
    ],
)
def test_a_command_line_is_read_as_data_too(tmp_path, value, words):
    with_beside(FB_STYLE, tmp_path / "a.pth", "args", hostile.ops(value))
    with pytest.raises(CaitError, match=words):
        read_torch_file(tmp_path / "a.pth")


def test_the_format_before_torch_1_6_is_refused_with_advice(tmp_path):
    (tmp_path / "old.pth").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + b"more")
    with pytest.raises(CaitError, match="before 1.6; save it anew"):
        read_torch_file(tmp_path / "old.pth")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"no checkpoint at all"])
def test_what_is_no_checkpoint_is_an_error(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CaitError, match="a.pth: not a PyTorch checkpoint that can be read"):
        read_torch_file(tmp_path / "a.pth")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_a_truncated_file_is_an_error(tmp_path, share):
    content = FB_STYLE.read_bytes()
    (tmp_path / "a.pth").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CaitError, match="not a PyTorch checkpoint that can be read"):
        read_torch_file(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda name, data: (name, data[:-4] if name.endswith("data/0") else data), "a storage shorter than it says"),
        (lambda name, data: (name.replace("data/0", "data/x"), data), "There is no item named"),
        (lambda name, data: (name.replace("data.pkl", "other.pkl"), data), "holds no data.pkl"),
    ],
)
def test_a_damaged_archive_is_an_error(tmp_path, change, words):
    with zipfile.ZipFile(FB_STYLE) as source, zipfile.ZipFile(tmp_path / "a.pth", "w") as target:
        for info in source.infolist():
            target.writestr(*change(info.filename, source.read(info)))
    with pytest.raises(CaitError, match=words):
        read_torch_file(tmp_path / "a.pth")


def test_big_endian_storages_are_read(tmp_path):
    values = read_torch_file(FB_STYLE)
    with zipfile.ZipFile(FB_STYLE) as source, zipfile.ZipFile(tmp_path / "a.pth", "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if "/data/" in info.filename:
                data = struct.pack(f">{len(data) // 4}f", *struct.unpack(f"<{len(data) // 4}f", data))
            target.writestr(info.filename, b"big" if info.filename.endswith("byteorder") else data)
    for name, value in read_torch_file(tmp_path / "a.pth").items():
        assert np.array_equal(value, values[name]), name


@pytest.mark.parametrize("content", [{}, {"model": {}}, [1], {"model": {"a": 3}}, {3: 4}])
def test_a_pickle_without_named_tensors_is_an_error(tmp_path, content):
    write_zip(tmp_path / "a.pth", pickle.dumps(content, protocol=2))
    with pytest.raises(CaitError, match="named tensor"):
        read_torch_file(tmp_path / "a.pth")


def test_a_small_file_cannot_ask_for_much_memory(tmp_path):
    with pytest.raises(pickle.UnpicklingError, match="beyond its storage"):
        _rebuild_tensor(_Storage(np.zeros(4, "f4")), 0, (20000, 20000), (0, 0))
    with zipfile.ZipFile(FB_STYLE) as source, zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    with pytest.raises(CaitError, match="a compressed file"):
        read_torch_file(tmp_path / "a.pth")


def test_strided_views():
    storage = _Storage(np.arange(12, dtype="f4"))
    assert np.array_equal(_rebuild_tensor(storage, 2, (2, 3), (1, 3)), [[2, 5, 8], [3, 6, 9]])
    assert _rebuild_tensor(storage, 3, (), ()).shape == ()
    assert _rebuild_tensor(storage, 0, (0, 5), (5, 1)).shape == (0, 5)
    for offset, shape, stride in ((2, (2, 6), (6, 1)), (0, (2,), (-1,)), (-1, (2,), (1,)), (0, (2, 2), (1,))):
        with pytest.raises(pickle.UnpicklingError):
            _rebuild_tensor(storage, offset, shape, stride)


def test_a_storage_is_no_tensor():
    with pytest.raises(pickle.UnpicklingError, match="a tensor without a storage"):
        _rebuild_tensor(np.zeros((4, 4), "f4"), 3, (4,), (4,))


def test_hostile_checkpoints_are_refused(tmp_path):
    for name, files in hostile.checkpoints():
        if name == "a million numbers":  # a second; tests/contract/test_hostile.py reads it, too
            continue
        (tmp_path / "case.pth").write_bytes(files["case.pth"])
        if name == "one tensor a thousand times":
            assert len(read_torch_file(tmp_path / "case.pth")) == 1000
            continue
        with pytest.raises(CaitError, match=r"case\.pth: ") as caught:
            read_torch_file(tmp_path / "case.pth")
        assert str(caught.value).isprintable() and len(str(caught.value)) < 500, name


@pytest.mark.parametrize("count, is_read", [(3, True), (5, False)])
def test_tensors_may_share_a_storage_but_not_without_end(tmp_path, count, is_read):
    size = 100_000
    tensor = hostile.tensor(hostile.ops((size,)), hostile.ops((1,)), source=hostile.storage(size=hostile.ops(size)))
    content = hostile.torch_file(hostile.state(*[tensor] * count), **{"data/0": bytes(4 * size)})
    (tmp_path / "a.pth").write_bytes(content)
    if is_read:
        assert {value.shape for value in read_torch_file(tmp_path / "a.pth").values()} == {(size,)}
    else:
        with pytest.raises(CaitError, match="tensors of more than 4 times the file's size"):
            read_torch_file(tmp_path / "a.pth")
