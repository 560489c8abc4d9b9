"""What may be written over: files of our own kinds, and nothing else of the user's."""

import json

import numpy as np
import pytest
from PIL import Image

from cait.command.outputs import KINDS, check_output, check_outputs
from cait.doctor import report
from cait.errors import UsageError
from cait.records.predictions import write_reprod_log, write_results
from project import run_python

pytestmark = pytest.mark.any_paddle


def write_ours(path, tiny_weights):
    """A file of ours of every kind."""
    if path.suffix in (".csv", ".jsonl"):
        with write_results(path, ["a"]) as write:
            write("image.jpg", [(0, 1.0)])
    elif path.suffix == ".npy":
        write_reprod_log(path, {"prob": np.ones(3)})
    elif path.suffix == ".json":
        path.write_text(json.dumps({"passed": True, "rows": [1, 2]}, indent=2))
    elif path.suffix == ".md":
        path.write_text(f"{report.MARK}\n\n### Machine and environment\n")
    elif path.suffix == ".log":
        path.write_text("[2026/01/01 00:00:00] root INFO: -- Env info --\n")
    elif path.suffix == ".png":
        Image.new("L", (4, 4)).save(path)
    elif path.suffix == ".svg":
        path.write_text('<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>\n')
    else:
        from cait.weights.read import read_any
        from cait.weights.write import write_any

        write_any(read_any(tiny_weights[2]), path)


@pytest.mark.parametrize("suffix", KINDS)
def test_a_file_is_replaced_by_its_own_kind_alone(tmp_path, tiny_weights, suffix):
    if suffix == ".pth":
        pytest.importorskip("torch")
    path = tmp_path / f"a{suffix}"
    assert check_output(path) == path  # not there yet
    write_ours(path, tiny_weights)
    assert check_output(str(path)) == path
    path.write_bytes(b"")  # as mktemp leaves it: nothing is lost
    assert check_output(path) == path
    foreign = {
        ".csv": ["name,age\nAnna,7\n", "label,text\n"],
        ".jsonl": ['{"prompt": "x"}\n'],
        ".json": ["{no json", '{"rows": [1, 2]}', "[" * 100_000],
        ".log": ["yesterday: nothing\n"],
        ".npy": [array_file(tmp_path, np.arange(3)), array_file(tmp_path, np.array([{"a": 1}, None]))],
        ".svg": ["<html>"],
    }
    for content in foreign.get(suffix, ["\0\0\0"]):
        path.write_bytes(before := content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UsageError, match=rf"a{suffix}: is there and not .*, so it is not replaced; name another"):
            check_output(path)
        assert path.read_bytes() == before


def array_file(folder, array):
    """What NumPy writes of an array."""
    np.save(folder / "array.bin.npy", array)
    return (folder / "array.bin.npy").read_bytes()


def test_folders_links_and_other_suffixes_are_refused(tmp_path):
    (tmp_path / "a.csv").mkdir()
    (tmp_path / "b.csv").symlink_to(tmp_path / "nowhere")
    for name in ("a.csv", "b.csv"):
        with pytest.raises(UsageError, match="is there and no file"):
            check_output(tmp_path / name)
    with pytest.raises(UsageError, match=r"photo\.jpg: must end in \.csv or \.jsonl"):
        check_output(tmp_path / "photo.jpg", ".csv", ".jsonl")
    with pytest.raises(UsageError, match="a.csv"):
        check_outputs(tmp_path, "c.json", "a.csv")


def test_a_command_refuses_at_once_and_leaves_the_file(tmp_path):
    photo, table = tmp_path / "photo.jpg", tmp_path / "table.csv"
    photo.write_bytes(b"\xff\xd8")
    table.write_text("name,age\n")
    for words in (f"--reprod_log={photo}", f"--output={photo}", f"--output={table}"):
        result = run_python("CaiT/infer.py", "--img-path=x.jpg", words)
        assert (
            result.returncode == 2 and result.stderr.startswith("error: argument --") and "x.jpg" not in result.stderr
        )
    assert photo.read_bytes() == b"\xff\xd8" and table.read_text() == "name,age\n"
