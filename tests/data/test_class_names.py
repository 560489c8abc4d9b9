"""The names of the classes belong to the run and its checkpoints, whatever becomes of the data."""

import csv
import shutil
import sys

import paddle
import pytest
import yaml

from cait.config.read import make_config, parse_value, read_yaml
from cait.config.saved import save_config
from cait.data.build import build_loaders
from cait.data.class_names import evaluated_classes, recorded_classes, shown_classes, trained_classes
from cait.data.labels import IMAGENET1K, read_class_names
from cait.errors import CaitError, UsageError
from cait.train import jobs
from cait.weights.load import load_weights
from cait.weights.read import load_tensors
from cait.zoo import build_model
from project import CLASS_NAMES, TINY

NAMES = ["eight", "five", "four", "nine", "one", "seven", "six", "three", "two", "zero"]  # as folders are sorted


def config_of(folder, **keys):
    values = TINY | {"DATA.DATASET": "folder", "DATA.DATA_PATH": str(folder / "data"), "TRAIN.NUM_EPOCHS": 1}
    values |= {"OUTPUT_DIR": str(folder / "run")} | {name.replace("__", "."): value for name, value in keys.items()}
    return make_config({name: parse_value(name, value, "test") for name, value in values.items()})


@pytest.fixture(scope="module")
def original(all_digits, tmp_path_factory):
    """A data set of class folders in `data`, and a run on it in `run`."""
    folder = tmp_path_factory.mktemp("original")
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for name in NAMES:
            target = folder / "data" / split / name if split != "test" else folder / "data" / "test"
            target.mkdir(parents=True, exist_ok=True)
            for image in sorted((all_digits / "train" / name).iterdir())[:count]:
                shutil.copy(image, target / f"{name}-{image.name}")
    jobs.run(config_of(folder))
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy of both, to be changed."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return tmp_path


def best(folder):
    return str(folder / "run" / "best_model")


def rename(folder, old, new, splits=("train", "val")):
    for split in splits:
        (folder / "data" / split / old).rename(folder / "data" / split / new)


def forget(folder):
    """Makes the run one that recorded no names."""
    path = folder / "run" / "config.yaml"
    path.write_text(path.read_text().partition("\nCLASSES:")[0])
    for file in (folder / "run").glob("*.pd*"):
        content = paddle.load(str(file))
        content.get("progress", {}).pop("classes", None)
        file.unlink()  # hard links of one another
        paddle.save(content, str(file))


@pytest.mark.parametrize("copied", [["*"], ["best_model.pdparams"]])
def test_a_checkpoint_keeps_its_names_however_it_is_copied(folder, copied):
    (folder / "copy").mkdir()
    for pattern in copied:
        for file in (folder / "run").glob(pattern):
            shutil.copy(file, folder / "copy")
    shutil.rmtree(folder / "data")
    for name in ("best_model", "best_model.pdparams"):
        classes = shown_classes(config_of(folder, MODEL__PRETRAINED=str(folder / "copy" / name), PRED=True))
        assert (classes.names, classes.notes) == (NAMES, [])


def test_weights_without_a_record_have_no_names_and_the_log_says_so(folder):
    forget(folder)
    shutil.copy(folder / "run" / "best_model.pdparams", folder)
    shutil.rmtree(folder / "data")
    classes = shown_classes(config_of(folder, MODEL__PRETRAINED=str(folder / "best_model")))
    assert classes.names == [str(index) for index in range(10)]
    assert "indices stand for them; -o DATA.LABELS" in classes.notes[0]


def test_the_weights_are_named_tensors_and_nothing_else(original):
    model = build_model(config_of(original))
    weights = paddle.load(str(original / "run" / "best_model.pdparams"))
    assert set(weights) == set(model.state_dict()) and model.set_state_dict(weights)[0] == []


def test_checkpoints_tell_apart_several_runs_in_one_folder(folder):
    path = folder / "run" / "config.yaml"
    path.write_text(path.read_text().replace("- zero", "- other"))
    assert recorded_classes(path)["names"][-1] == "other"
    for kept in (".pdparams", ".pdstates"):
        assert shown_classes(config_of(folder, MODEL__PRETRAINED=best(folder))).names == NAMES
        rewrite(folder / "run" / f"best_model{kept}")  # as it was saved before there were records
    assert shown_classes(config_of(folder, MODEL__PRETRAINED=best(folder))).names == NAMES


def rewrite(file):
    content = paddle.load(str(file))
    file.unlink()
    paddle.save(content, str(file))


def test_a_run_that_named_no_classes_does_not_get_the_names_of_another(folder):
    """Weights of a run whose classes have indices alone, beside the config of another run."""
    names = folder / "data" / "labels.txt"
    as_lists(folder, NAMES)
    names.unlink()
    jobs.run(config_of(folder, DATA__DATASET="imagenet2012", OUTPUT_DIR=str(folder / "lists")))
    shutil.copy(folder / "lists" / "best_model.pdparams", folder / "run" / "best_model.pdparams")
    shutil.rmtree(folder / "data")
    assert shown_classes(config_of(folder, MODEL__PRETRAINED=best(folder))).names == [str(n) for n in range(10)]


def test_the_names_of_weights_are_found_without_reading_tensors(folder, monkeypatch):
    (folder / "run" / "config.yaml").unlink()

    def refuse(*_, **__):
        raise AssertionError("the tensors were read")

    monkeypatch.setattr(paddle, "load", refuse)
    for name in ("best_model", "best_model.pdparams", ""):
        assert shown_classes(config_of(folder, MODEL__PRETRAINED=str(folder / "run" / name))).names == NAMES
    assert trained_classes(config_of(folder, TRAIN__RESUME=str(folder / "run"))).names == NAMES


@pytest.mark.parametrize("is_old", [False, True], ids=["with a record", "without"])
def test_damaged_states_do_not_matter_to_those_who_need_weights_alone(folder, is_old):
    if is_old:
        for kept in (".pdparams", ".pdstates"):
            rewrite(folder / "run" / f"best_model{kept}")
    states = folder / "run" / "best_model.pdstates"
    content = states.read_bytes()
    states.unlink()
    states.write_bytes(content[:1000] + bytes(5000) + (content[6000:] if not is_old else b""))
    for job in ("EVAL", "PRED"):
        jobs.run(config_of(folder, MODEL__PRETRAINED=best(folder), **{job: True}))
        assert build_loaders(config_of(folder, MODEL__PRETRAINED=best(folder), **{job: True})).classes.names == NAMES


def test_a_run_without_a_record_has_the_names_of_the_data(folder):
    forget(folder)
    rename(folder, "zero", "null")
    for keys in ({"PRED": True}, {"EVAL": True}):
        loaders = build_loaders(config_of(folder, MODEL__PRETRAINED=best(folder), **keys))
        assert loaders.classes.names == sorted(NAMES[:-1] + ["null"]) and loaders.notes == []
    jobs.run(config_of(folder, TRAIN__RESUME=str(folder / "run"), TRAIN__NUM_EPOCHS=2))
    assert "null" in load_tensors(folder / "run" / "latest.pdstates")["progress"]["classes"]["names"]


@pytest.mark.parametrize("change", ["gone", "renamed"])
def test_every_answer_carries_the_names_of_the_training(folder, monkeypatch, capsys, change):
    """-pred, the export and the pictures."""
    import export_model
    from cait.deploy import export
    from cait.deploy.bundle import write_description
    from cait.visualize.attention_models import open_models

    for split in ("train", "val"):
        shutil.rmtree(folder / "data" / split)
        if change == "renamed":
            shutil.copytree(folder / "data" / "test", folder / "data" / split / "aardvark")
    jobs.run(config_of(folder, PRED=True, MODEL__PRETRAINED=best(folder), PREDICT__TOP_K=10))
    with open(folder / "run" / "predictions.csv", newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 100 and all(row["class_name"] == NAMES[int(row["class_id"])] for row in rows)
    words = [
        f"-cfg={folder / 'run' / 'config.yaml'}",
        f"--model_path={best(folder)}",
        f"-o=DATA.DATA_PATH={folder}/data",
    ]
    seen = []

    def exported(model, description, bundle, *_):
        seen.append(description)
        bundle.mkdir()
        write_description(bundle, description)
        return {}

    monkeypatch.setattr(export, "export", exported)
    monkeypatch.setattr(sys, "argv", ["export_model.py", *words, f"--save-inference-dir={folder / 'bundle'}"])
    export_model.main()
    [source] = open_models([best(folder)], [], None, {"DATA.DATA_PATH": str(folder / "data")})
    assert seen[0].class_names == source.description.class_names == NAMES
    told = (folder / "run" / "log_pred.txt").read_text(), capsys.readouterr().out
    for words in told:
        assert ("has 'aardvark', which the checkpoint does not know" in words) == (change == "renamed")


def test_evaluation_matches_images_with_classes_by_name(folder):
    whole = jobs.evaluate(config_of(folder, EVAL=True, MODEL__PRETRAINED=best(folder), EVALUATE__CONFUSION=True))
    rows = (folder / "run" / "per_class.csv").read_text(encoding="utf-8-sig").splitlines()
    shutil.rmtree(folder / "data" / "train")
    for name in ("eight", "nine"):
        shutil.rmtree(folder / "data" / "val" / name)
    some = jobs.evaluate(config_of(folder, EVAL=True, MODEL__PRETRAINED=best(folder), EVALUATE__CONFUSION=True))
    assert (whole.num_images, some.num_images) == (20, 16)
    left = (folder / "run" / "per_class.csv").read_text(encoding="utf-8-sig").splitlines()
    kept = [number for number, row in enumerate(rows) if not any(name in row for name in ("eight", "nine"))]
    assert [left[number] for number in kept] == [rows[number] for number in kept]
    assert "no images of 2 of the 10 classes: eight, nine" in (folder / "run" / "log_eval.txt").read_text()


def test_evaluation_names_a_class_that_the_checkpoint_does_not_know(folder):
    rename(folder, "zero", "null", ["val"])
    with pytest.raises(
        CaitError, match="data: has images of classes that the checkpoint does not know: 'null'; it has"
    ):
        jobs.run(config_of(folder, EVAL=True, MODEL__PRETRAINED=best(folder)))


def as_lists(folder, names):
    """Gives the data set list files, with indices by these names."""
    for split in ("train", "val"):
        images = sorted((folder / "data" / split).rglob("*.png"))
        lines = [f"{path.relative_to(folder / 'data')} {names.index(path.parent.name)}\n" for path in images]
        (folder / "data" / f"{split}_list.txt").write_text("".join(lines))
    (folder / "data" / "labels.txt").write_text("".join(f"{index} {name}\n" for index, name in enumerate(names)))
    return {"DATA__DATASET": "imagenet2012"}


def test_lists_with_names_are_matched_by_them_and_others_by_their_indices(folder):
    keys = {"EVAL": True, "MODEL__PRETRAINED": best(folder)}
    expected = [NAMES.index(name) for name in NAMES for _ in range(2)]
    lists = as_lists(folder, NAMES[::-1])
    loaders = build_loaders(config_of(folder, **keys, **lists))
    assert loaders.val.dataset.source.labels == expected and "matched by name" in loaders.notes[0]
    as_lists(folder, [*NAMES[:-1], "unused", "zero"])  # one more class, of which there is no image
    assert build_loaders(config_of(folder, **keys, **lists)).val.dataset.source.labels == expected
    as_lists(folder, NAMES)
    (folder / "data" / "labels.txt").unlink()
    loaders = build_loaders(config_of(folder, **keys, **lists))
    assert loaders.val.dataset.source.labels == expected and loaders.notes == []


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda data: rename(data, "zero", "null"),
            "has 'null', which the checkpoint does not know; the data lacks 'zero'",
        ),
        (lambda data: shutil.copytree(data / "data/train/one", data / "data/train/more"), "the data has 'more'"),
        (lambda data: shutil.rmtree(data / "data/train/one"), "the data lacks 'one'"),
    ],
    ids=["renamed", "added", "missing"],
)
def test_a_run_goes_on_only_with_its_own_classes(folder, change, words):
    change(folder)
    before = {path.name: path.read_bytes() for path in (folder / "run").iterdir()}
    with pytest.raises(UsageError, match=words):
        jobs.run(config_of(folder, TRAIN__RESUME=str(folder / "run"), TRAIN__NUM_EPOCHS=2))
    assert {path.name: path.read_bytes() for path in (folder / "run").iterdir()} == before


def test_a_run_on_lists_does_not_go_on_with_classes_in_another_order(folder):
    keys = as_lists(folder, NAMES) | {"OUTPUT_DIR": str(folder / "lists")}
    jobs.run(config_of(folder, **keys))
    keys |= {"TRAIN__RESUME": str(folder / "lists"), "TRAIN__NUM_EPOCHS": 2}
    as_lists(folder, [NAMES[1], NAMES[0], *NAMES[2:]])
    with pytest.raises(UsageError, match="class 0 is 'eight' in the checkpoint and 'five' in the data"):
        jobs.run(config_of(folder, **keys))
    (folder / "data" / "labels.txt").unlink()  # nothing to compare with: the names are those of the run
    assert trained_classes(config_of(folder, **keys)).record() == {"names": NAMES}


def label_file(folder, names):
    path = folder / "names.txt"
    path.write_text("".join(f"{index} {name}\n" for index, name in enumerate(names)), encoding="utf-8")
    return str(path)


def test_given_names_are_recorded_with_those_of_the_data_and_outlive_their_file(folder):
    translated = [f"数字 {name}" for name in NAMES]
    lists = as_lists(folder, NAMES) | {"OUTPUT_DIR": str(folder / "lists")}
    jobs.run(config_of(folder, **lists, DATA__LABELS=label_file(folder, translated)))
    (folder / "names.txt").unlink()
    assert "names.txt" not in (folder / "lists" / "config.yaml").read_text()
    resumed = trained_classes(config_of(folder, **lists, TRAIN__RESUME=str(folder / "lists"), TRAIN__NUM_EPOCHS=2))
    assert resumed.record() == {"names": translated, "of_data": NAMES}
    weights = {"MODEL__PRETRAINED": str(folder / "lists" / "latest")}
    assert shown_classes(config_of(folder, **lists, **weights)).names == translated
    as_lists(folder, NAMES[::-1])
    classes = evaluated_classes(config_of(folder, **lists, **weights, EVAL=True))
    assert (classes.names, classes.index) == (translated, list(range(10))[::-1])


def test_label_files_win_over_the_record(folder):
    names = label_file(folder, [f"digit {name}" for name in NAMES])
    keys = {"DATA__LABELS": names, "MODEL__PRETRAINED": best(folder)}
    for make in (shown_classes, evaluated_classes):
        classes = make(config_of(folder, **keys, EVAL=make is evaluated_classes))
        assert classes.names[3] == "digit nine" and classes.index is None
    with pytest.raises(UsageError, match="names.txt: names 9 classes, but MODEL.NUM_CLASSES is 10"):
        label_file(folder, NAMES[1:])
        shown_classes(config_of(folder, **keys))
    for moved, is_allowed in (([*NAMES[:-1], "null"], True), ([NAMES[1], NAMES[0], *NAMES[2:]], False)):
        label_file(folder, moved)
        resumed = config_of(folder, DATA__LABELS=names, TRAIN__RESUME=str(folder / "run"))
        if is_allowed:
            assert trained_classes(resumed).names == moved
        else:
            with pytest.raises(UsageError, match="names.txt: 'five' is another class in"):
                trained_classes(resumed)


def test_fine_tuning_on_other_names_says_what_becomes_of_the_head(folder):
    keys = {"MODEL__PRETRAINED": best(folder), "OUTPUT_DIR": str(folder / "tuned")}
    rename(folder, "zero", "zzz")  # at the same place, as a translation would be
    classes = trained_classes(config_of(folder, **keys))
    words = "classes of other names (the data has 'zzz', which the checkpoint does not know; the data lacks 'zero')"
    assert words in classes.notes[0] and "its head is kept" in classes.notes[0] and not classes.is_other_head
    rename(folder, "zzz", "null")  # which moves others
    with pytest.raises(UsageError, match="its head has 'one' at another place .* -o MODEL.RESET_HEAD=true"):
        jobs.run(config_of(folder, **keys))
    assert not (folder / "tuned").exists()
    jobs.run(config_of(folder, **keys, MODEL__RESET_HEAD=True))
    assert "fresh head for 10 classes in place of 10" in (folder / "tuned" / "log_train.txt").read_text()


def test_a_head_for_other_classes_starts_fresh_whatever_its_count(original):
    model = build_model(config_of(original))
    head = model.head.weight.numpy()
    load_weights(model, best(original), reset_head=True, is_other_head=True)
    assert (model.head.weight.numpy() == head).all()
    load_weights(model, best(original), reset_head=True)
    assert (model.head.weight.numpy() != head).any()


def test_a_run_that_was_stopped_before_it_saved_begins_again_with_what_there_is(folder):
    for file in (folder / "run").glob("*.pd*"):
        file.unlink()
    resumed = {"TRAIN__RESUME": str(folder / "run")}
    as_lists(folder, NAMES)
    (folder / "data" / "labels.txt").unlink()
    assert trained_classes(config_of(folder, **resumed, DATA__DATASET="imagenet2012")).names == NAMES
    rename(folder, "zero", "null")
    assert "null" in trained_classes(config_of(folder, **resumed)).names


def test_imagenet_has_the_same_classes_by_name_and_by_wordnet_id(folder):
    names = read_class_names(IMAGENET1K)
    keys = {"MODEL__NUM_CLASSES": 1000, "MODEL__PRETRAINED": str(folder / "imagenet" / "weights"), "EVAL": True}
    (folder / "imagenet").mkdir()
    save_config(config_of(folder, **keys), folder / "imagenet" / "config.yaml", {"names": names})
    shutil.rmtree(folder / "data" / "val")
    for wordnet_id in ("n01443537", "n03126707"):
        shutil.copytree(folder / "data" / "test", folder / "data" / "val" / wordnet_id)
    loaders = build_loaders(config_of(folder, **keys))
    assert set(loaders.val.dataset.source.labels) == {1, 517} and loaders.classes.names[517] == "crane"
    assert "no images of 998 of the 1000 classes: tench" in loaders.notes[0]


def test_any_name_survives_in_the_config_and_in_the_states(tmp_path):
    names = [
        "no",
        "1e3",
        "12:30:45",
        " a ",
        "猫",
        "a\nb",
        "a\u2028b",
        "\udc80",
        "n01440764 tench",
        "0",
        "- x",
        "#",
        "'",
    ]
    save_config(make_config({}), tmp_path / "config.yaml", {"names": names})
    assert recorded_classes(tmp_path / "config.yaml") == {"names": names}
    assert "CLASSES" not in read_yaml(tmp_path / "config.yaml")
    paddle.save({"progress": {"classes": {"names": names}}}, str(tmp_path / "x.pdstates"))
    assert load_tensors(tmp_path / "x.pdstates")["progress"]["classes"] == {"names": names}


@pytest.mark.parametrize("record", [["a"], {"other": ["a"]}, {"names": ["a"], "of_data": []}, "a"])
def test_a_record_that_was_changed_to_something_else_is_an_error(tmp_path, record):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"CLASSES": record}))
    with pytest.raises(UsageError, match="config.yaml: CLASSES must hold `names`"):
        recorded_classes(tmp_path / "config.yaml")


def test_a_name_without_quotes_that_yaml_takes_for_something_else_is_an_error(tmp_path):
    (tmp_path / "config.yaml").write_text("CLASSES:\n  names: [cat, 7]\n")
    with pytest.raises(UsageError, match="write '7' in quotes"):
        recorded_classes(tmp_path / "config.yaml")


def test_a_teacher_must_not_have_the_classes_in_another_order(tiny_config, tiny_bundle, tmp_path):
    keys = {"DISTILL__TYPE": "hard", "DISTILL__TEACHER": str(tiny_bundle), "TRAIN__NUM_EPOCHS": 1}
    names = label_file(tmp_path, CLASS_NAMES[::-1])
    with pytest.raises(UsageError, match="DISTILL.TEACHER .* has 'class 9' at another place among its classes"):
        jobs.run(tiny_config(**keys, DATA__LABELS=names))
    jobs.run(tiny_config(**keys))
    log = (tmp_path / "run" / "log_train.txt").read_text()
    assert "names its classes otherwise (class 0 is 'class 0' there and 'zero' here" in log
