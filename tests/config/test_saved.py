"""The config that a run leaves in its folder."""

import pytest

from cait.config import read as cfg
from cait.config.saved import changes_since, check_replaceable, save_config
from cait.errors import UsageError
from cait.train import jobs


def test_a_saved_config_loads_as_it_was(tmp_path):
    config = cfg.make_config({"TRAIN.GRAD_CLIP": 1.0, "MODEL.PRETRAINED": "w", "DATA.IMAGE_SIZE": [224, 320]})
    save_config(config, tmp_path / "config.yaml")
    assert cfg.make_config(cfg.read_yaml(tmp_path / "config.yaml")) == config


def test_what_changed_since_a_run_was_started_is_told(tmp_path):
    save_config(cfg.make_config({"OUTPUT_DIR": "a"}), tmp_path / "config.yaml")
    now = cfg.make_config({"TRAIN.NUM_EPOCHS": 8, "DATA.IMAGE_SIZE": [224, 320], "NGPUS": 2, "OUTPUT_DIR": "b"})
    changes = ["DATA.IMAGE_SIZE [224, 320], not [224, 224]", "TRAIN.NUM_EPOCHS 8, not 100"]
    assert changes_since(now, tmp_path / "config.yaml") == changes


def test_what_a_run_saved_may_be_replaced(tmp_path):
    path = tmp_path / "config.yaml"
    check_replaceable(path)  # nothing is there
    for values in ({}, {"MODEL.PRETRAINED": "权重", "TRAIN.GRAD_CLIP": 1.0, "DATA.IMAGE_SIZE": [224, 320]}):
        for classes in (None, {"names": ["金鱼", "on", "3"]}):
            save_config(cfg.make_config(values), path, classes)
            check_replaceable(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: f"# my notes\n{text}",
        lambda text: text.replace("SEED: 0", "SEED: 0  # of the second try"),
        lambda text: "SEED: 3\n",
        lambda text: "a: [",
        lambda text: "",
    ],
)
@pytest.mark.parametrize("job", ["train", "eval"])
def test_a_config_of_the_users_is_not_replaced(tiny_config, tmp_path, tiny_weights, job, edit):
    run = tmp_path / "run"
    run.mkdir()
    path = run / ("config.yaml" if job == "train" else "config_eval.yaml")
    save_config(cfg.make_config({}), path)
    path.write_text(edit(path.read_text()))
    before = path.read_bytes()
    keys = {"EVAL": True, "MODEL__PRETRAINED": str(tiny_weights[2])} if job == "eval" else {}
    with pytest.raises(UsageError, match=rf"{path.name}: is no config that a run saved, or was edited since"):
        jobs.run(tiny_config(**keys))
    assert path.read_bytes() == before and not list(run.glob("log*"))
