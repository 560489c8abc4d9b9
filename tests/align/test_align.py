"""The alignment ladder passes, and fails where one thing is wrong."""

import json

import numpy as np
import pytest

from cait import precision
from cait.align import ladder, references, verdict
from cait.align.golden import GoldenReference
from cait.align.references import golden_references
from cait.align.verdict import Row, table
from cait.config.read import make_config
from cait.errors import CaitError
from cait.model import CaiT
from cait.train import losses, optim
from cait.variants import list_models
from cait.weights.write import save_weights
from cait.zoo import create_model
from project import GOLDEN, ROOT, run_python

SCRIPT = str(ROOT / "CaiT" / "check_alignment.py")
SIZES = {"image_size": 16, "patch_size": 4, "num_classes": 10, "embed_dim": 24, "depth": 3, "num_heads": 2}


@pytest.fixture
def tiny():
    with precision.default_dtype("float64"):
        yield GoldenReference(GOLDEN, "tiny", lambda: CaiT(**SIZES))


def failed_steps(reference, steps=(1, 2, 3, 4, 5)):
    return {row.step for row in ladder.climb(reference, list(steps)) if not row.passed}


def test_all_five_steps_of_the_tiny_model_pass(tiny, tmp_path):
    rows = ladder.climb(tiny, [1, 2, 3, 4, 5], tmp_path)
    assert all(row.passed for row in rows)
    assert {step: sum(row.step == step for row in rows) for step in range(1, 6)} == {1: 1, 2: 22, 3: 11, 4: 101, 5: 198}
    log = np.load(tmp_path / "tiny_1_forward_paddle.npy", allow_pickle=True).item()
    assert log["logits"].shape == (8, 10)
    assert "diff check passed" in (tmp_path / "tiny_4_gradients_diff.txt").read_text()


def test_a_variant_passes_forward_and_preprocessing():
    with precision.default_dtype("float64"):
        rows = ladder.climb(GoldenReference(GOLDEN, "cait_xxs24_224", lambda: create_model("cait_xxs24_224")), [1, 2])
    assert all(row.passed for row in rows) and len(rows) == 25


class Damaged(GoldenReference):
    """The golden reference against a model with one thing wrong."""

    damage = None

    def our_model(self):
        model = super().our_model()
        type(self).damage(model)
        return model


def damaged(change):
    return type("Damaged", (Damaged,), {"damage": staticmethod(change)})(GOLDEN, "tiny", lambda: CaiT(**SIZES))


def transpose(model):
    weight = model.blocks[1].attn.proj.weight
    weight.set_value(weight.numpy().T.copy())


def scale(model):
    gamma = model.blocks[2].gamma_1
    gamma.set_value(gamma.numpy() * 1.01)


@pytest.mark.parametrize("change", [transpose, scale])
def test_one_wrong_weight_fails_every_step_that_uses_the_model(tiny, change):
    assert failed_steps(damaged(change)) == {1, 3, 4, 5}


def test_another_label_smoothing_fails_the_losses(tiny, monkeypatch):
    monkeypatch.setattr(ladder, "SMOOTHING", 0.11)
    assert failed_steps(tiny) == {3}


def test_another_loss_formula_fails_the_losses(tiny, monkeypatch):
    real = losses.soft_distillation
    monkeypatch.setattr(losses, "soft_distillation", lambda logits, teacher, tau: real(logits, teacher, tau) * 10)
    assert failed_steps(tiny) == {3}


@pytest.mark.parametrize("wrong", [lambda name, p: True, lambda name, p: p.ndim > 1])
def test_another_rule_of_weight_decay_fails_the_training(tiny, monkeypatch, wrong):
    monkeypatch.setattr(optim, "is_decayed", wrong)
    assert failed_steps(tiny, [5]) == {5}


def test_another_mean_fails_the_preprocessing(tiny, monkeypatch):
    monkeypatch.setattr(ladder, "make_config", lambda values: make_config({"DATA.MEAN": [0.485, 0.456, 0.407]}))
    assert failed_steps(tiny, [2]) == {2}


def test_one_logit_that_is_not_a_number_fails(tiny, monkeypatch):
    real = ladder.forward

    def forward(model, images):
        arrays = real(model, images)
        arrays["logits"][3, 4] = np.nan
        return arrays

    monkeypatch.setattr(ladder, "forward", forward)
    assert failed_steps(tiny, [1]) == {1}
    row = json.loads(verdict.report(ladder.climb(tiny, [1])))["rows"][0]
    assert (row["passed"], row["max_diff"]) == (False, None)


@pytest.mark.parametrize("wrong", ["nan on both sides", "missing", "transposed", "too much"])
def test_the_verdict_is_our_own(wrong):
    reference = {"a": np.arange(4.0).reshape(2, 2)}
    ours = {"a": reference["a"] + 2e-11}
    if wrong == "nan on both sides":
        ours = reference = {"a": np.array([np.nan])}
    elif wrong == "missing":
        ours = {"b": ours["a"]}
    elif wrong == "transposed":
        reference, ours = {"a": np.zeros((2, 3))}, {"a": np.zeros((3, 2))}
    else:
        ours = {"a": reference["a"] + 4e-11}
    assert not verdict.compare("m", 1, ours, reference)[0].passed
    assert verdict.compare("m", 1, {"a": np.arange(4.0) + 2e-11}, {"a": np.arange(4.0)})[0].passed


def test_nothing_compared_is_not_a_pass():
    with pytest.raises(CaitError, match="nothing to compare in step 1"):
        verdict.compare("m", 1, {}, {})


def test_the_command_prints_a_table_and_leaves_a_report(tmp_path):
    result = run_python(SCRIPT, "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("passed") == 7 and "all 358 arrays agree" in result.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["passed"] and len(report["rows"]) == 358
    thresholds = {row["name"]: row["threshold"] for row in report["rows"] if row["model"] == "tiny"}
    assert thresholds["schedule/paper_400"] == pytest.approx(5e-16)
    assert thresholds["grad/blocks.0.attn.proj_l.bias"] == thresholds["grad/cls_token"] < 1e-9
    assert thresholds["adamw_clip1.0/losses"] == pytest.approx(2.6e-9, rel=0.1)


def test_the_command_fails_where_a_number_differs(tmp_path):
    golden = tmp_path / "golden"
    golden.mkdir()
    for path in GOLDEN.iterdir():
        (golden / path.name).symlink_to(path)
    arrays = dict(np.load(GOLDEN / "train_tiny.npz"))
    arrays["grad/norm.weight"] = arrays["grad/norm.weight"] + 1e-8
    (golden / "train_tiny.npz").unlink()
    np.savez(golden / "train_tiny.npz", **arrays)
    result = run_python(SCRIPT, "--models", "tiny", "--golden", golden, "--output", tmp_path / "out")
    assert result.returncode == 1 and "1 of 333 arrays differ" in result.stderr
    assert "4 gradients" in result.stdout and "FAILED" in result.stdout and "grad/norm.weight" in result.stdout
    assert not json.loads((tmp_path / "out" / "report.json").read_text())["passed"]


@pytest.mark.parametrize(
    "words, exit_code, message",
    [
        (["--models", "cait_xl"], 2, "no variant 'cait_xl'"),
        (["--weights", "a.pdparams"], 2, "--weights and --images need --live or --deploy"),
        (["--golden", "nowhere"], 1, "nowhere/train_tiny.json: cannot be read"),
        (["--steps", "6"], 2, "invalid choice: 6"),
        (["--models", "cait_xxs24_224", "--steps", "3"], 2, "cait_xxs24_224: the golden files have steps (1, 2)"),
        (["--live", "--models", "tiny"], 2, "no variant 'tiny'"),
        (["--deploy", "nowhere"], 2, "--deploy needs --weights and --images"),
    ],
)
def test_wrong_usage_is_one_sentence(tmp_path, words, exit_code, message):
    result = run_python(SCRIPT, "--output", tmp_path, *words)
    assert result.returncode == exit_code
    assert result.stderr.startswith("error: ") and message in result.stderr


def test_live_against_timm(timm, tmp_path, all_digits):
    from cait.align.live import LiveReference

    weights = tmp_path / "weights.pdparams"
    save_weights(create_model("cait_xxs24_224", num_classes=7), weights)
    pictures = [str(path) for path in sorted(all_digits.rglob("*.png"))[:2]]
    with precision.default_dtype("float64"):
        make = lambda classes: create_model("cait_xxs24_224", num_classes=classes)  # noqa: E731
        rows = ladder.climb(LiveReference("cait_xxs24_224", make, weights, pictures), [1, 2, 3])
    assert all(row.passed for row in rows)


def test_all_are_the_tiny_model_and_every_variant():
    """Without climbing: tests/test_model.py holds each variant against the same golden file."""
    names = [reference.name for reference in golden_references(["all"], GOLDEN)]
    assert names == ["tiny", *list_models()] and len(names) == 11


def test_live_weights_may_be_the_folder_of_a_run(monkeypatch, tmp_path):
    (tmp_path / "best_model.pdparams").touch()
    monkeypatch.setattr(references, "LiveReference", lambda name, make_model, weights, pictures: weights)
    assert list(references.live_references(["cait_xxs24_224"], tmp_path, None)) == [tmp_path / "best_model.pdparams"]
    with pytest.raises(CaitError, match="nowhere: no such checkpoint"):
        list(references.live_references(["cait_xxs24_224"], tmp_path / "nowhere", None))


def test_the_table_has_a_line_for_each_threshold():
    """Beside bf16, whose threshold is wide, what fp32 is judged by is still seen."""
    rows = [
        Row("tiny", 6, "a", 1e-6, 1e-7, 3e-5, True, "fp32"),
        Row("tiny", 6, "b", 4e-1, 1e-2, 5e-1, True, "bf16"),
        Row("tiny", 6, "c", 2e-6, 1e-7, 3e-5, True, "fp32"),
        Row("tiny", 6, "b, changed classes", 0.0, 0.0, 0.01, True, "bf16 classes"),
    ]
    head, *lines = table(rows).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "tiny 6 deployment, fp32 2 2.00e-06 1.00e-07 3.00e-05 passed",
        "tiny 6 deployment, bf16 1 4.00e-01 1.00e-02 5.00e-01 passed",
        "tiny 6 deployment, bf16 classes 1 0.00e+00 0.00e+00 1.00e-02 passed",
    ]
    assert len({line.index("passed") for line in lines} | {head.index("verdict")}) == 1


def test_float32_agrees_within_bounds_of_its_own():
    """As on a GPU, where float64 does not tell whether the usual precision computes as it should."""
    (reference,) = golden_references(["tiny"], GOLDEN)
    rows = ladder.climb(reference, [1, 2, 3, 4, 5])
    assert all(row.passed for row in rows)
    (logits,) = (row for row in rows if row.name == "logits")
    assert 1e-8 < logits.max_diff < logits.threshold < 2e-5  # it was computed in float32
    wrong = {"logits": reference.expected("forward")["logits"] + 1e-4}
    assert not verdict.compare("tiny", 1, wrong, reference.expected("forward"), "float32")[0].passed
