"""Defaults, YAML files, validation, and the table of keys."""

import inspect

import pytest
import yaml

from cait.config import keys
from cait.config import read as cfg
from cait.errors import UsageError
from cait.model import CaiT
from project import ROOT

ALL_YAML = sorted([*ROOT.glob("CaiT/configs/*.yaml"), *ROOT.glob("configs/**/*.yaml")])


@pytest.fixture
def write_yaml(tmp_path):
    def write(text, name="run.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("path", ALL_YAML, ids=lambda path: path.name)
def test_every_yaml_loads(path):
    config = cfg.make_config(cfg.read_yaml(path))
    if path.parent.name == "configs" and path.stem.startswith("cait_"):
        assert path.stem == config.MODEL.NAME
        assert config.DATA.IMAGE_SIZE == [int(path.stem[-3:])] * 2


def test_the_recipes_are_the_papers():
    recipe = cfg.make_config(cfg.read_yaml(ROOT / "configs" / "pretrain_imagenet.yaml"))
    assert recipe.DATA.BATCH_SIZE * recipe.TRAIN.ACCUM_ITER == 1024 and recipe.TRAIN.NUM_EPOCHS == 400
    aug, train = recipe.AUG, recipe.TRAIN
    assert (aug.MIXUP, aug.CUTMIX, aug.SWITCH_PROB, train.SMOOTHING) == (0.8, 1.0, 0.5, 0.1)
    assert (aug.RANDOM_ERASING, aug.ERASING_MODE, aug.REPEATED_AUG) == (0.25, "pixel", 3)
    assert (train.EMA_DECAY, train.WEIGHT_DECAY, train.GRAD_CLIP) == (0.99996, 0.05, None)
    tuned = cfg.make_config(cfg.read_yaml(ROOT / "configs" / "finetune_384.yaml") | {"MODEL.PRETRAINED": "w"})
    assert (tuned.TRAIN.BASE_LR, tuned.TRAIN.END_LR, tuned.TRAIN.WEIGHT_DECAY) == (5e-6, 5e-6, 1e-8)
    assert tuned.DATA.BATCH_SIZE * tuned.TRAIN.ACCUM_ITER == 512 and tuned.AUG == recipe.AUG


def test_the_parts_of_the_recipe_are_off_by_default():
    config = cfg.make_config({})
    aug, train = config.AUG, config.TRAIN
    assert (aug.AUTO_AUGMENT, aug.COLOR_JITTER, aug.RANDOM_ERASING, aug.REPEATED_AUG) == ("", 0, 0, 1)
    assert (aug.MIXUP, aug.CUTMIX, train.EMA_DECAY, config.SAVE_STEPS) == (0, 0, None, 0)
    assert (train.LAYER_DECAY, train.FREEZE) == (1.0, "none")


def test_the_defaults_are_the_smallest_variant():
    variant = cfg.make_config(cfg.read_yaml(ROOT / "CaiT" / "configs" / "cait_xxs24_224.yaml"))
    assert variant == cfg.make_config({})


def test_base_is_relative_to_the_file_and_comes_first(write_yaml):
    write_yaml("SEED: 3\nMODEL: {DEPTH: 2, NAME: base}\n", "a/base.yaml")
    config = cfg.make_config(cfg.read_yaml(write_yaml("BASE: [../a/base.yaml]\nMODEL: {NAME: mine}\n", "b/run.yaml")))
    assert (config.SEED, config.MODEL.DEPTH, config.MODEL.NAME) == (3, 2, "mine")


def test_base_files_that_include_each_other_are_an_error(write_yaml):
    write_yaml("BASE: [two.yaml]\n", "one.yaml")
    with pytest.raises(UsageError, match="include each other"):
        cfg.read_yaml(write_yaml("BASE: [one.yaml]\n", "two.yaml"))


@pytest.mark.parametrize(
    "text, words",
    [
        ("MODEL: {DEPHT: 3}", "unknown key MODEL.DEPHT (did you mean MODEL.DEPTH?)"),
        ("FOO: 3", "unknown key FOO"),
        ("FOO: {A: {B: 3}}", "unknown key FOO"),
        ("MODEL: &a {DEPTH: *a}", "line 1: an alias of what it stands in"),
        ("MODEL: &a {MODEL: *a}", "line 1: an alias of what it stands in"),
        ("MODEL: {DEPTH: three}", "MODEL.DEPTH must be a whole number from 1, not 'three'"),
        ("MODEL: {DEPTH: 2.5}", "MODEL.DEPTH must be a whole number"),
        ("MODEL: {DEPTH: true}", "MODEL.DEPTH must be a whole number"),
        ("MODEL: {QKV_BIAS: 1}", "MODEL.QKV_BIAS must be true or false"),
        ("DATA: {BATCH_SIZE: 0}", "DATA.BATCH_SIZE must be a whole number from 1, not 0"),
        ("DATA: {IMAGE_SIZE: [1, 2, 3]}", "DATA.IMAGE_SIZE must be a whole number, or [height, width]"),
        ("DATA: {MEAN: 0.5}", "DATA.MEAN must be a list"),
        ("DATA: {DATASET: mnist}", "DATA.DATASET must be one of imagenet2012, folder, cifar10, cifar100"),
        ("DATA: 3", "DATA is a section"),
        ("SEED: {A: 1}", "SEED must be a whole number"),
        ("TRAIN: {BASE_LR: .nan}", "TRAIN.BASE_LR must be a number above 0"),
        ("TRAIN: {BASE_LR: .inf}", "TRAIN.BASE_LR must be a number above 0"),
        ("TRAIN: {BETAS: [0.9, 1.0]}", "TRAIN.BETAS must be a list of 2 numbers"),
        ("OUTPUT_DIR: 3", "OUTPUT_DIR must be a path"),
        ("a: [", "not valid YAML (line "),
        ("SEED: 3\n\tVALIDATE_FREQ: 1", "not valid YAML (line 2: found "),
        ("SEED: 3\nMODEL: \x07", "not valid YAML (line 2: a character that is not allowed)"),
        ("SEED: 2024-13-45", "not valid YAML (month must be in 1..12"),
        ("- 1", "must hold keys and values"),
        ("BASE: x.yaml", "BASE must be a list"),
        ("BASE: [no.yaml]", "no such config file"),
    ],
)
def test_a_wrong_file_is_one_clear_error(write_yaml, text, words):
    path = write_yaml(text)
    with pytest.raises(UsageError) as caught:
        cfg.read_yaml(path)
    assert words in str(caught.value)
    assert str(path.parent) in str(caught.value)


@pytest.mark.parametrize(
    "text, name, lines",
    [
        ("MODEL: {DEPTH: 2}\nTRAIN: {NUM_EPOCHS: 3}\n\nMODEL: {NUM_HEADS: 2}\n", "MODEL", (1, 4)),
        ("TRAIN:\n  NUM_EPOCHS: 3\n  NUM_EPOCHS: 5\n", "TRAIN.NUM_EPOCHS", (2, 3)),
        ("SEED: 1\nSEED: 1\n", "SEED", (1, 2)),
        ("BASE: [a.yaml]\nSEED: 1\nBASE: [b.yaml]\n", "BASE", (1, 3)),
        ("TRAIN:\n  NUM_EPOCHS: 3\nTRAIN.NUM_EPOCHS: 5\n", "TRAIN.NUM_EPOCHS", (2, 3)),
    ],
)
def test_nothing_may_stand_twice_in_a_file(write_yaml, text, name, lines):
    path = write_yaml(text)
    with pytest.raises(UsageError) as caught:
        cfg.read_yaml(path)
    assert f"{path}: {name} stands twice, in lines {lines[0]} and {lines[1]}" in str(caught.value)
    with pytest.raises(UsageError, match=f"{name} stands twice"):
        cfg.read_yaml(write_yaml("BASE: [run.yaml]\n", "other.yaml"))


def test_a_key_in_two_files_is_that_of_the_file_that_includes_the_other(write_yaml):
    write_yaml("SEED: 1\nMODEL: {DEPTH: 2}\n", "base.yaml")
    values = cfg.read_yaml(write_yaml("BASE: [base.yaml]\nMODEL: {DEPTH: 3}\n"))
    assert values == {"SEED": 1, "MODEL.DEPTH": 3}


@pytest.mark.parametrize("encoding, words", [("gbk", "in GBK: save it as UTF-8"), ("utf-16", "in UTF-16")])
def test_a_file_in_another_encoding_says_so(tmp_path, encoding, words):
    (tmp_path / "a.yaml").write_text("# 训练配置\nSEED: 3\n", encoding=encoding)
    with pytest.raises(UsageError, match=rf"a\.yaml: not a UTF-8 text file .*{words}"):
        cfg.read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "values, words",
    [
        ({"DATA.IMAGE_SIZE": [224, 230]}, "not a multiple of MODEL.PATCH_SIZE"),
        ({"MODEL.NUM_HEADS": 5}, "not a multiple of MODEL.NUM_HEADS"),
        ({"DATA.MEAN": [0.5]}, "DATA.MEAN needs 3 values"),
        ({"AUG.CROP_SCALE": [0.9, 0.1]}, "AUG.CROP_SCALE"),
        ({"EVAL": True, "PRED": True, "MODEL.PRETRAINED": "x"}, "exclude each other"),
        ({"EVAL": True}, "need -pretrained"),
        ({"EVAL": True, "MODEL.PRETRAINED": "x", "TRAIN.RESUME": "x"}, "-resume goes on with training"),
        ({"TRAIN.LAST_EPOCH": 20}, "-last_epoch counts the epochs of a resumed run"),
        ({"PREDICT.IMAGE": "a.jpg"}, "PREDICT.IMAGE needs -pred"),
    ],
)
def test_keys_that_do_not_go_together_are_an_error(values, words):
    with pytest.raises(UsageError, match=words):
        cfg.make_config(values)


def test_numbers_that_yaml_reads_as_text_are_numbers(write_yaml):
    assert cfg.read_yaml(write_yaml("TRAIN: {BASE_LR: 1e-5}")) == {"TRAIN.BASE_LR": 1e-5}


def test_pretrained_weights_bring_the_gentle_recipe_unless_a_key_is_set():
    scratch, finetune = cfg.make_config({}), cfg.make_config({"MODEL.PRETRAINED": "x"})
    assert (scratch.TRAIN.BASE_LR, scratch.TRAIN.WEIGHT_DECAY) == (5e-4, 0.05)
    assert (finetune.TRAIN.BASE_LR, finetune.TRAIN.WEIGHT_DECAY) == (5e-6, 1e-8)
    assert scratch.TRAIN.NUM_EPOCHS == finetune.TRAIN.NUM_EPOCHS == 100
    assert cfg.make_config({"MODEL.PRETRAINED": "x", "TRAIN.BASE_LR": 5e-4}).TRAIN.BASE_LR == 5e-4


def test_the_defaults_are_valid():
    for key in cfg.KEYS:
        assert cfg.parse_value(key.name, key.default, "default") == key.default
        assert yaml.safe_load(yaml.safe_dump(key.default)) == key.default


def test_the_table_of_keys_in_the_docs_is_current():
    assert keys.markdown_table() in (ROOT / "docs" / "config.md").read_text(), "run `make docs`"


def test_every_key_is_read_somewhere():
    sources = "".join(
        path.read_text() for path in (ROOT / "CaiT").rglob("*.py") if path.parts[-2:] != ("config", "read.py")
    )
    for key in cfg.KEYS:
        last = key.name.rsplit(".")[-1]
        if key.name.startswith("MODEL.") and last.lower() in inspect.signature(CaiT).parameters:
            continue  # `model_arguments` reads these by the names of the arguments
        assert f".{last}" in sources, key.name


@pytest.mark.parametrize(
    "word, expected", [("fp32", False), ("fp16", True), ("amp", True), ("True", True), ("false", False)]
)
def test_mixed_precision_in_the_words_of_benchmarks(word, expected):
    assert cfg.parse_override("AMP", word, "-o") is expected
    with pytest.raises(UsageError, match="-o: AMP must be true or false, or as benchmarks say"):
        cfg.parse_override("AMP", f"{word}x", "-o")


def test_a_log_has_a_plain_name():
    assert cfg.parse_override("LOG_NAME", "train.log", "-o") == "train.log" and not cfg.parse_override(
        "LOG_NAME", "", "-o"
    )
    for name in ("../train.log", "a/b.log", "latest.pdparams", ".."):
        with pytest.raises(UsageError, match="LOG_NAME must be empty, or a file name that ends in .log or .txt"):
            cfg.parse_override("LOG_NAME", name, "-o")
