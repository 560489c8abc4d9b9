"""The flags of the command line."""

import re

import pytest

from cait.config.flags import parse_command
from cait.config.saved import save_config
from cait.errors import UsageError


@pytest.mark.parametrize(
    "words, key, value",
    [
        (["-dataset=cifar10"], "DATA.DATASET", "cifar10"),
        (["-dataset", "folder"], "DATA.DATASET", "folder"),
        (["-batch_size=256"], "DATA.BATCH_SIZE", 256),
        (["-image_size=384"], "DATA.IMAGE_SIZE", [384, 384]),
        (["-image_size", "[224, 320]"], "DATA.IMAGE_SIZE", [224, 320]),
        (["-data_path=a folder/b=c"], "DATA.DATA_PATH", "a folder/b=c"),
        (["-ngpus=1"], "NGPUS", 1),
        (["-pretrained=123"], "MODEL.PRETRAINED", "123"),
        (["-resume", "run", "-last_epoch=0"], "TRAIN.LAST_EPOCH", 0),
        (["-epochs", "2"], "TRAIN.NUM_EPOCHS", 2),
        (["-output_dir=out"], "OUTPUT_DIR", "out"),
        (["-amp"], "AMP", True),
        (["-amp=False"], "AMP", False),
        (["-eval", "-pretrained=x"], "EVAL", True),
        (["-pretrained=x", "-pred"], "PRED", True),
        (["-epochs=2", "-epochs=3"], "TRAIN.NUM_EPOCHS", 3),
        (["-epochs=2", "-o", "TRAIN.NUM_EPOCHS=3"], "TRAIN.NUM_EPOCHS", 3),
        (["-o", "TRAIN.NUM_EPOCHS=3", "-epochs=2"], "TRAIN.NUM_EPOCHS", 2),
        (["-o", "SEED=1", "TRAIN.GRAD_CLIP=0.5", "-o", "SEED=2"], "SEED", 2),
        (["-o", "TRAIN.GRAD_CLIP=null"], "TRAIN.GRAD_CLIP", None),
        (["-o", "TRAIN.BETAS=[0.8, 0.9]"], "TRAIN.BETAS", [0.8, 0.9]),
        (["-o", "DATA.LABELS=a: b"], "DATA.LABELS", "a: b"),
        (["-o", "DEVICE=cpu"], "DEVICE", "cpu"),
    ],
)
def test_flags(words, key, value):
    config = parse_command(words)
    for part in key.split("."):
        config = config[part]
    assert config == value and type(config) is type(value)


def test_a_flag_that_is_not_given_changes_nothing(tiny_yaml):
    config = parse_command([f"-cfg={tiny_yaml}"])
    assert (config.TRAIN.NUM_EPOCHS, config.DATA.BATCH_SIZE, config.OUTPUT_DIR) == (2, 16, "")


def test_batch_size_is_that_of_the_job():
    assert parse_command(["-eval", "-pretrained=x", "-batch_size=7"]).DATA.BATCH_SIZE_EVAL == 7
    assert parse_command(["-batch_size=7"]).DATA.BATCH_SIZE_EVAL is None


def test_batch_size_of_the_yaml_counts_where_no_flag_is_given(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("DATA: {BATCH_SIZE_EVAL: 3}")
    assert parse_command([f"-cfg={path}", "-eval", "-pretrained=x"]).DATA.BATCH_SIZE_EVAL == 3


@pytest.mark.parametrize(
    "words, message",
    [
        (["-foo=1"], "unrecognized arguments: -foo=1"),
        (["foo"], "unrecognized arguments: foo"),
        (["-batch_size"], "expected one argument"),
        (["-batch_size=0"], "-batch_size: DATA.BATCH_SIZE must be a whole number from 1, not 0"),
        (["-batch_size=many"], "not 'many'"),
        (["-resume=a", "-pretrained=b"], "leave out -pretrained"),
        (["-o", "SEED=2024-13-45"], "SEED must be a whole number from 0 to 2147483647, not '2024-13-45'"),
        (["-image_size=400000"], "DATA.IMAGE_SIZE must be"),
        (["-eval=maybe"], "EVAL must be true or false"),
        (["-o", "SEED"], "must be KEY=VALUE"),
        (["-o", "SEEDS=1"], "unknown key SEEDS (did you mean SEED?)"),
        (["-cfg=a.yaml", "-epochs=2", "-cfg", "b.yaml"], "argument -cfg: stands twice, with different values"),
        (["-cfg=no.yaml"], "no.yaml: no such config file"),
        (["-cfg="], "no such config file"),
    ],
)
def test_wrong_usage_is_one_clear_error(words, message):
    with pytest.raises(UsageError) as caught:
        parse_command(words)
    assert message in str(caught.value) and caught.value.exit_code == 2


def test_resume_takes_over_the_config_of_the_run(tmp_path, tiny_yaml):
    first = parse_command([f"-cfg={tiny_yaml}", "-epochs=5", "-batch_size=3", "-pretrained=weights"])
    save_config(first, tmp_path / "config.yaml")
    for name in (tmp_path, tmp_path / "latest", tmp_path / "latest.pdstates"):
        resumed = parse_command([f"-resume={name}", "-batch_size=4"])
        assert (resumed.TRAIN.NUM_EPOCHS, resumed.DATA.BATCH_SIZE, resumed.MODEL.DEPTH) == (5, 4, 1)
        assert resumed.TRAIN.BASE_LR == first.TRAIN.BASE_LR
        assert (resumed.OUTPUT_DIR, resumed.TRAIN.RESUME) == (str(tmp_path), str(name))


@pytest.fixture
def run(tmp_path, tiny_yaml):
    """A run that was started with a YAML file and flags that change two of its keys."""
    first = parse_command([f"-cfg={tiny_yaml}", "-epochs=5", "-o", "MODEL.DEPTH=3", f"-output_dir={tmp_path}"])
    save_config(first, tmp_path / "config.yaml")
    return tmp_path


def test_a_yaml_beside_resume_changes_nothing_in_silence(run, tiny_yaml):
    with pytest.raises(UsageError) as caught:
        parse_command([f"-cfg={tiny_yaml}", f"-resume={run}"])
    for words in (f"-cfg={tiny_yaml} changes", f"{run}/config.yaml: ", "MODEL.DEPTH 1, not 3", "NUM_EPOCHS 2, not 5"):
        assert words in str(caught.value)
    assert re.search(r"leave out -cfg .* such as -o [A-Z._]+=\d$", str(caught.value))


def test_flags_decide_between_a_yaml_and_the_config_of_the_resumed_run(run, tiny_yaml):
    words = [f"-cfg={tiny_yaml}", f"-resume={run}", "-o", "MODEL.DEPTH=3"]
    for epochs in (2, 5, 7):
        assert parse_command([*words, f"-epochs={epochs}"]).TRAIN.NUM_EPOCHS == epochs


def test_a_yaml_beside_resume_that_says_the_same_is_no_matter(run, tmp_path):
    (tmp_path / "same.yaml").write_text("TRAIN: {NUM_EPOCHS: 5}\nNGPUS: 2\nOUTPUT_DIR: elsewhere\n")
    resumed = parse_command([f"-cfg={tmp_path / 'same.yaml'}", f"-resume={run}"])
    assert (resumed.TRAIN.NUM_EPOCHS, resumed.NGPUS, resumed.OUTPUT_DIR) == (5, 2, "elsewhere")


def test_the_last_flag_wins_for_the_batch_of_evaluation():
    words = ["-eval", "-pretrained=x", "-batch_size=7", "-o", "DATA.BATCH_SIZE_EVAL=3"]
    assert parse_command(words).DATA.BATCH_SIZE_EVAL == 3
    assert parse_command([*words, "-batch_size=8"]).DATA.BATCH_SIZE_EVAL == 8


def test_the_saved_config_of_a_resumed_run_serves_evaluation(tmp_path):
    save_config(parse_command(["-resume=run", "-last_epoch=3"]), tmp_path / "config.yaml")
    assert parse_command([f"-cfg={tmp_path / 'config.yaml'}", "-eval", "-pretrained=x"]).EVAL


def test_resume_from_bare_weights_does_not_write_beside_them(tmp_path):
    assert parse_command([f"-resume={tmp_path}/weights", "-last_epoch=2"]).OUTPUT_DIR == ""
