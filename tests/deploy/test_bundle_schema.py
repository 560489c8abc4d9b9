"""Every field of `inference.yaml` is checked before anything of a bundle is run."""

import pytest

import hostile
from cait.deploy import bundle_schema
from cait.deploy.bundle import read_description
from cait.errors import CaitError

GOOD = hostile.DESCRIPTION | {"files": {"inference.json": "0" * 64, "inference.pdiparams": "1" * 64}}


def test_a_description_is_taken():
    bundle_schema.check(GOOD)
    names = ["caf\xe9\tau lait", "\u732b\u3000\u72ac", "\u0645\u06cc\u200c\u0631\u0648\u062f", ""]
    bundle_schema.check(GOOD | {"class_names": names, "self_test_logits": [0, 1.5, -2, 0.0]})
    bundle_schema.check(GOOD | {"channels": 3, "mean": [0.0, 0.5, 1], "std": [1, 0.5, 0.1], "precision": "bf16"})


def test_hostile_descriptions_are_refused(tmp_path):
    for name, files in hostile.descriptions():
        for file, content in files.items():
            (tmp_path / file).write_bytes(content)
        with pytest.raises(CaitError, match=r"inference\.yaml: ") as caught:
            read_description(tmp_path)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 600, name


@pytest.mark.parametrize("field", hostile.BAD_FIELDS)
def test_a_wrong_field_is_named(tmp_path, field):
    cases = {name: files for name, files in hostile.descriptions() if name.startswith(f"{field}: ")}
    assert len(cases) == len(hostile.BAD_FIELDS[field])
    for name, files in cases.items():
        for file, content in files.items():
            (tmp_path / file).write_bytes(content)
        with pytest.raises(CaitError) as caught:
            read_description(tmp_path)
        together = {"channels": "mean", "class_names": "self_test_logits", "patch_size": "image_size"}
        assert field in str(caught.value) or together.get(field, "-") in str(caught.value), name


def test_the_value_that_is_wrong_in_a_list_is_named():
    with pytest.raises(ValueError, match=r"class_names\[1\] must be text .* in quotes .*, not True"):
        bundle_schema.check(GOOD | {"class_names": ["a", True]})
    with pytest.raises(ValueError, match=r"self_test_logits\[0\] must be a number .*, not inf"):
        bundle_schema.check(GOOD | {"self_test_logits": [float("inf"), 0.0]})
