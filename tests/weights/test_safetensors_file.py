"""The headers of `.safetensors` files are checked before a tensor is read, and what is wrong is named."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import hostile
from cait.errors import CaitError
from cait.weights.safetensors_file import read_safetensors
from project import GOLDEN


def test_what_is_read_is_what_the_library_reads(tmp_path):
    kinds = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "?", "u8", "u4", "u2", "u1")
    tensors = {kind: np.ones((2, 3), kind) for kind in kinds} | {"none": np.zeros((0, 3), "f4"), "one": np.array(1.5)}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    for path in (tmp_path / "a.safetensors", GOLDEN / "tiny_timm_style.safetensors"):
        found, expected = read_safetensors(path), load_file(path)
        assert found.keys() == expected.keys()
        assert all(
            found[name].dtype == value.dtype and np.array_equal(found[name], value) for name, value in expected.items()
        )


def test_hostile_files_are_refused(tmp_path):
    path = tmp_path / "case.safetensors"
    for name, files in hostile.safetensors():
        path.write_bytes(files["case.safetensors"])
        with pytest.raises(CaitError, match=r"case\.safetensors: ") as caught:
            hostile.read_weights(tmp_path)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 600, name


@pytest.mark.parametrize(
    "case, words",
    [
        ("type 'F8_E4M3'", "'a' is in 'F8_E4M3', which is not read; save the weights in float32"),
        ("type 'F8_E5M2'", "'a' is in 'F8_E5M2', which is not read"),
        ("type 'BF16'", "'a' is in bfloat16; save the weights in float32"),
        ("type 'F128'", "'a' is in 'F128', which is not read"),
        ("overlap", "'b' overlaps another tensor"),
        ("a gap", "'a' does not follow the tensor before it"),
        ("a name twice", "it has 'a' twice"),
        ("header of 1099511627776 bytes", "its header is said to have 1099511627776 bytes"),
        ("more data", "its tensors take 64 bytes, and it has 128"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, case, words):
    path = tmp_path / "case.safetensors"
    path.write_bytes(dict(hostile.safetensors())[case]["case.safetensors"])
    with pytest.raises(CaitError, match=words):
        read_safetensors(path)
