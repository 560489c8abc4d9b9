"""Every recipe as it is, but for the size of model, images, batch and run, and the number of processes that read the
images, on digits laid out as ImageNet."""

import pytest

from cait.align.golden import load_golden_weights
from cait.config.flags import parse_command
from cait.config.read import make_config, read_yaml
from cait.data.prepare.lite import write_lite
from cait.deploy.export import build_description, export
from cait.train import jobs, training
from cait.weights.write import save_weights
from cait.zoo import build_model
from project import ROOT
from runs import rows_of

SMALL = {
    "MODEL.EMBED_DIM": 96,
    "MODEL.DEPTH": 2,
    "MODEL.NUM_HEADS": 2,
    "MODEL.PATCH_SIZE": 8,
    "DATA.IMAGE_SIZE": 32,
    "DATA.BATCH_SIZE": 128,
    "DATA.NUM_WORKERS": 0,  # an epoch is too short to start others for
    "VALIDATE_FREQ": 100,  # after the last epoch
}
STEPS = 10  # at the start and at the end, whose mean losses are compared
FROM_SCRATCH = ["pretrain_imagenet", "pretrain_xxs36_224", "pretrain_s24_224", "pretrain_m48_224", "distil_imagenet"]
FINE_TUNING = ["finetune_384", "finetune_m48_448"]


def command(recipe, data, folder, **keys):
    words = [f"-cfg={ROOT / 'configs' / recipe}.yaml", f"-data_path={data}", f"-output_dir={folder}", "-o"]
    return parse_command(words + [f"{name}={value}" for name, value in (SMALL | keys).items()])


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """256 training images: two batches, which make one step of an epoch."""
    folder = tmp_path_factory.mktemp("lite")
    write_lite(folder / "LSVRC2012", folder / "none", 256, 10, whole_train=False, whole_infer=False)
    return folder / "LSVRC2012"


@pytest.fixture(scope="session")
def teacher(data, tmp_path_factory):
    """A bundle that takes the student's images; what it knows does not matter here."""
    folder = tmp_path_factory.mktemp("teacher")
    config = command("pretrain_imagenet", data, folder / "run")
    model = build_model(config)
    save_weights(model, folder / "weights.pdparams")
    names = [str(index) for index in range(1000)]
    export(model, build_description(config, names, folder / "weights.pdparams"), folder / "bundle")
    return folder / "bundle"


@pytest.fixture
def losses(monkeypatch):
    """The loss of every batch."""
    found, real = [], training.build_mix_and_criterion

    def spied(*arguments):
        mix, criterion = real(*arguments)

        def recording(logits, targets):
            loss = criterion(logits, targets)
            found.append(float(loss))
            return loss

        return mix, recording

    monkeypatch.setattr(training, "build_mix_and_criterion", spied)
    return found


def run(config, losses):
    """Mean loss of the first and of the last steps."""
    jobs.run(config)
    batches = STEPS * min(config.TRAIN.ACCUM_ITER, len(losses) // config.TRAIN.NUM_EPOCHS)
    assert len(losses) >= 2 * batches
    return sum(losses[:batches]) / batches, sum(losses[-batches:]) / batches


@pytest.mark.slow
@pytest.mark.parametrize("recipe", FROM_SCRATCH)
def test_a_recipe_from_scratch_learns(recipe, data, teacher, tmp_path, losses):
    keys = {"DISTILL.TEACHER": teacher} if recipe == "distil_imagenet" else {}
    first, last = run(command(recipe, data, tmp_path / "run", **{"TRAIN.NUM_EPOCHS": 40}, **keys), losses)
    assert last <= 0.8 * first, (first, last)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", FINE_TUNING)
def test_a_recipe_for_published_weights_keeps_them(recipe, data, teacher, tmp_path, losses):
    """At 5e-6 a short run moves next to nothing: the loss must not rise, and every part must run."""
    config = command("pretrain_imagenet", data, tmp_path / "start")
    save_weights(build_model(config), tmp_path / "start.pdparams")
    keys = {"TRAIN.NUM_EPOCHS": 20, "MODEL.PRETRAINED": tmp_path / "start.pdparams"}
    keys |= {"DISTILL.TEACHER": teacher} if "m48" in recipe else {}
    first, last = run(command(recipe, data, tmp_path / "run", **keys), losses)
    assert last <= 1.02 * first, (first, last)


@pytest.mark.slow
def test_fine_tuning_on_own_images_learns(all_digits, data, tmp_path, losses):
    """From weights whose LayerScale is that of a trained model, not of a fresh one."""
    config = command("pretrain_imagenet", data, tmp_path / "start")
    save_weights(load_golden_weights(build_model(config)), tmp_path / "start.pdparams")
    keys = {"DATA.BATCH_SIZE": 16, "MODEL.PRETRAINED": tmp_path / "start.pdparams", "MODEL.NUM_CLASSES": 10}
    keys |= {"TRAIN.NUM_EPOCHS": 8, "DATA.NUM_WORKERS": 2}
    first, last = run(command("finetune_own", all_digits, tmp_path / "run", **keys), losses)
    accuracy = rows_of(tmp_path / "run")[-1]["val_acc1"]  # 0.1 by chance
    assert last <= 0.95 * first and accuracy >= 0.25, (first, last, accuracy)


@pytest.mark.slow
def test_fine_tuning_as_the_seed_does_keeps_a_trained_model(all_digits, demo_run, tmp_path):
    """A command that names a model and its weights, and no recipe: the defaults, flips and hard crops included."""
    demo = ROOT / "configs" / "demo_digits.yaml"
    values = {name: value for name, value in read_yaml(demo).items() if name.startswith(("MODEL.", "DATA."))}
    values |= {"MODEL.PRETRAINED": str(demo_run / "latest"), "DATA.DATA_PATH": str(all_digits)}
    values |= {"DATA.BATCH_SIZE": 256, "TRAIN.NUM_EPOCHS": 1, "OUTPUT_DIR": str(tmp_path / "tuned")}
    jobs.run(make_config(values))
    before, after = (rows_of(folder)[-1]["val_acc1"] for folder in (demo_run, tmp_path / "tuned"))
    assert before > 0.9 and after >= before - 0.005, (before, after)
