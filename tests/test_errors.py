"""Names of files, headers and messages that others chose: none ends a line or steers a terminal."""

import json
import shutil

import pytest

from cait.command.run import outcome
from cait.data.image_files import to_stderr
from cait.errors import CaitError, UsageError, one_line
from cait.records.log import open_log
from cait.records.predictions import result_line
from cait.serve.uploads import UploadError
from project import ROOT, run_python

EVIL = "a\x1b[2J\x1b]0;title\x07\r\nerror: forged \u202egpj.\x9b31m\udcff\u2028.png"
SAFE = r"a\x1b[2J\x1b]0;title\x07\r\nerror: forged \u202egpj.\x9b31m\udcff\u2028.png"


@pytest.mark.any_paddle
@pytest.mark.parametrize(
    "text, expected",
    [
        (EVIL, SAFE),
        ("图像\u3000名 é ñ \U0001f431\t\u00a0", "图像\u3000名 é ñ \U0001f431\t\u00a0"),
        ("\0\x7f\x85\u2066\ufeff", r"\x00\x7f\x85\u2066\ufeff"),
        ("", ""),
        (7, "7"),
    ],
)
def test_a_line_is_one_and_letters_stay_as_they_are(text, expected):
    assert one_line(text) == expected
    assert one_line(expected) == expected  # so that it may be done twice


@pytest.mark.any_paddle
def test_what_is_printed_and_logged_is_such_a_line(tmp_path, capsys):
    for error in (CaitError(EVIL), UsageError(EVIL), UploadError(400, EVIL)):
        assert str(error) == SAFE and outcome(error)[0] == SAFE
    assert outcome(FileNotFoundError(2, "No such file", EVIL)) == (f"{SAFE}: No such file", 1)
    assert result_line(EVIL, 1, EVIL, 0.5) == f"image_name: {SAFE}, class_id: 1, class_name: {SAFE}, prob: 0.5"
    to_stderr(EVIL)
    log = open_log(tmp_path / "log.txt")
    try:
        log.warning("%d images left out, the first: %s", 3, EVIL)
        try:
            raise RuntimeError(EVIL)
        except RuntimeError:
            log.exception("it failed")
    finally:
        open_log(None)
    text = (tmp_path / "log.txt").read_bytes().decode()
    assert f"3 images left out, the first: {SAFE}\n" in text and "\nRuntimeError: a\\x1b[2J" in text
    shown = capsys.readouterr()
    assert shown.err == f"warning: {SAFE}\n"
    for each in (text, shown.out):
        assert not [character for character in each if character != "\n" and not character.isprintable()]


def test_images_with_such_names(tiny_bundle, digits, tmp_path):
    """The lines of infer.py; its results keep the names as they are."""
    folder, results = tmp_path / "images", tmp_path / "results.jsonl"
    folder.mkdir()
    names = ["a\x1b[31m.png", "b\nimage_name: forged.png", "c\u202egnp.png"]
    for name in names:
        shutil.copy(next(digits.rglob("*.png")), folder / name)
    (folder / "d\x1b[2J\nerror: forged.png").write_bytes(b"no image")
    infer = ROOT / "CaiT" / "infer.py"
    result = run_python(infer, f"--img-path={folder}", f"--model_dir={tiny_bundle}", f"--output={results}")
    assert result.returncode == 1
    for text in (result.stdout, result.stderr):
        assert not [character for character in text if character != "\n" and not character.isprintable()], text
    assert len(result.stdout.splitlines()) == 4 and r"a\x1b[31m.png" in result.stdout
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row["image_name"] for row in rows[:3]] == [str(folder / name) for name in names]
