"""The files that results are written to."""

import json

import numpy as np

from cait.records.predictions import read_results, write_results
from cait.train.confusion import write_confusion
from harness import compare, steps

NAME = "爱尔兰雪达犬, красный"
MARK = b"\xef\xbb\xbf"  # which tells Excel that a CSV is UTF-8


def write(path):
    with write_results(path, [NAME, "other"]) as write_row:
        write_row("图像.jpg", [(0, 0.75), (1, 0.25)])
    return path


def test_tables_open_in_excel_and_in_our_own_readers(tmp_path):
    path = write(tmp_path / "results.csv")
    write_confusion(tmp_path, np.eye(2, dtype="int64"), [NAME, "other"])
    for table in tmp_path.glob("*.csv"):
        content = table.read_bytes()
        assert content.startswith(MARK) and content.count(MARK) == 1, table.name
    assert NAME in (tmp_path / "per_class.csv").read_text(encoding="utf-8-sig")
    without_mark = tmp_path / "old.csv"  # as they were written before
    without_mark.write_bytes(path.read_bytes().removeprefix(MARK))
    for table in (path, without_mark):
        assert read_results(table)[0] == {"path": "图像.jpg", "class": NAME, "probability": 0.75}
        assert compare.read_table(table)["图像.jpg"][0] == (0, 0.75)
        assert steps.predicted(table)() == ""


def test_other_files_have_no_mark(tmp_path):
    path = write(tmp_path / "results.jsonl")
    assert json.loads(path.read_bytes().splitlines()[0])["class_name"] == NAME


def test_an_image_that_could_not_be_read_has_a_row_of_its_own(tmp_path):
    """With the columns of the others, and its error in the last one; our own readers pass it over."""
    for suffix in (".csv", ".jsonl"):
        with write_results(tmp_path / f"a{suffix}", ["one", "two"]) as write_row:
            write_row("good.png", [(1, 0.75)])
            write_row("bad.png", [], "bad.png: the image cannot be read (no such file)")
    text = (tmp_path / "a.csv").read_text(encoding="utf-8-sig")
    assert text.split("\n") == [
        "image_name,rank,class_id,class_name,prob,error",
        "good.png,1,1,two,0.75,",
        "bad.png,,,,,bad.png: the image cannot be read (no such file)",
        "",
    ]
    good, bad = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert good == {
        "image_name": "good.png", "rank": 1, "class_id": 1, "class_name": "two", "prob": 0.75, "error": None,
    }  # fmt: skip
    assert list(bad) == list(good) and bad["class_id"] is None and bad["error"].startswith("bad.png: the image")
    assert [row["path"] for row in read_results(tmp_path / "a.csv")] == ["good.png"]
    assert list(compare.read_table(tmp_path / "a.csv")) == ["good.png"]
