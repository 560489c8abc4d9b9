"""Mutates checkpoints and has `cait.weights.torch_file` read them; anything but an answer or a CaitError is a finding.

See README.md beside this file.
"""

import io
import os
import pathlib
import sys

import atheris

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "CaiT"), str(ROOT / "tests" / "helpers")]

with atheris.instrument_imports(include=["cait", "pickletools", "zipfile"]):
    import zipfile

    from cait.errors import CaitError
    from cait.weights.torch_file import read_torch_file

import hostile  # noqa: E402

FILE = f"/dev/shm/cait-fuzz-{os.getpid()}.pth" if os.path.isdir("/dev/shm") else f"/tmp/cait-fuzz-{os.getpid()}.pth"


def one_input(data: bytes) -> None:
    """The first byte says what follows it: a whole file, or the pickle of one whose archive is sound."""
    if not data:
        return
    content = data[1:] if data[0] % 4 == 0 else hostile.torch_file(data[1:])
    with open(FILE, "wb") as file:
        file.write(content)
    try:
        tensors = read_torch_file(FILE)
    except CaitError:
        return
    assert sum(value.nbytes for value in tensors.values()) <= 4 * len(content), "more than the bound"
    for value in tensors.values():
        value.sum()  # reads every element


def write_seeds(folder: pathlib.Path) -> None:
    """The corpus to begin with: sound checkpoints, and those of tests/helpers/hostile.py but for the large ones."""
    folder.mkdir(parents=True, exist_ok=True)
    pickles = dict(hostile.torch_pickles()) | {"good": hostile.state(hostile.tensor(), hostile.tensor())}
    golden = (ROOT / "tests" / "golden" / "tiny_fb_style.pth").read_bytes()
    with zipfile.ZipFile(io.BytesIO(golden)) as archive:
        pickles["golden"] = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    seeds = [b"\1" + pickled for pickled in pickles.values()]
    seeds += [b"\0" + hostile.torch_file(pickled) for pickled in pickles.values()]
    for number, seed in enumerate(seeds):
        if len(seed) < 50_000:
            (folder / f"seed-{number:03}").write_bytes(seed)


if __name__ == "__main__":
    corpus = [word for word in sys.argv[1:] if not word.startswith("-")]
    if corpus:
        write_seeds(pathlib.Path(corpus[0]))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
