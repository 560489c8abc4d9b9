"""Every key of the config: its name, its default, what values it takes, and what it does."""

from typing import Any, NamedTuple

import yaml

from cait.config.kinds import FLAG, LOG_NAME, PATH, PRECISION, SIZE, TEXT, Kind, choice, integer, number, numbers


class Key(NamedTuple):
    """One config key. `finetune` replaces `default` when MODEL.PRETRAINED is set; None means no difference."""

    name: str
    default: Any
    kind: Kind
    help: str
    finetune: Any = None


KEYS = (
    Key("DATA.DATASET", "imagenet2012", choice("imagenet2012", "folder", "cifar10", "cifar100"),
        "How the data folder is read: list files; one folder a class; the archive of CIFAR."),
    Key("DATA.DATA_PATH", "dataset/LSVRC2012", PATH, "The data folder (cifar: the folder of the archive)."),
    Key("DATA.BATCH_SIZE", 64, integer(1), "Images per step and process."),
    Key("DATA.BATCH_SIZE_EVAL", None, integer(1, optional=True),
        "The batch size of evaluation and prediction; null: DATA.BATCH_SIZE. With -eval or -pred, "
        "`-batch_size` sets this key."),
    Key("DATA.IMAGE_SIZE", [224, 224], SIZE, "Height and width of the model's input in pixels."),
    Key("DATA.CROP_PCT", 1.0, number(0.1, 1),
        "Evaluation resizes the short side to floor(size / CROP_PCT) and crops the centre."),
    Key("DATA.MEAN", [0.485, 0.456, 0.406], numbers(0, 1), "Mean of each channel, for pixels in 0-1."),
    Key("DATA.STD", [0.229, 0.224, 0.225], numbers(1e-6, 1), "Standard deviation of each channel."),
    Key("DATA.DEEP_GREY", "scale", choice("scale", "clip"),
        "How to read grey images of 16 bits. scale: to 8 bits, which keeps the picture. clip: cuts every "
        "value above 255 to 255, as timm and torchvision do; then images of 32 bits are read, too. A bundle "
        "keeps the choice."),
    Key("DATA.NUM_WORKERS", 2, integer(0), "Processes that read images; 0: the main process reads them itself."),
    Key("DATA.READER", "pillow", choice("pillow", "fast"),
        "How training images are read: with the pixels of the published weights, or more than twice as fast "
        "by simplejpeg (requirements-fast.txt), with other pixels (performance.md). Evaluation always reads "
        "with Pillow."),
    Key("DATA.LABELS", "", PATH,
        "File of class names, one per line: `index name`, or `index WordNet-id name`; empty: the names that "
        "the checkpoint was trained on, or else those of the data set. A run saves the names, and not this "
        "key."),
    Key("DATA.ON_BAD_IMAGE", "error", choice("error", "skip"),
        "What training does with an image that cannot be read: it stops, or leaves the image out and counts "
        "it."),
    Key("DATA.CHECK_SECONDS", 2.0, number(0),
        "Seconds before training in which validation and training images are checked, so that bad ones are "
        "found before hours are spent; 0: no check. `prepare_data.py check` checks all images."),
    Key("AUG.CROP_SCALE", [0.08, 1.0], numbers(0.001, 1, 2), "Random resized crop: share of the area, from and to."),
    Key("AUG.CROP_RATIO", [0.75, 4 / 3], numbers(0.01, 100, 2), "Random resized crop: width / height, from and to."),
    Key("AUG.HFLIP", 0.5, number(0, 1), "Probability of a horizontal flip."),
    Key("AUG.AUTO_AUGMENT", "", TEXT,
        "`rand-m9-mstd0.5-inc1` and the like: RandAugment in timm's notation; `three-augment`: grey, solarised or "
        "blurred, as in DeiT III; empty: neither."),
    Key("AUG.COLOR_JITTER", 0.0, number(0, 1),
        "Largest share by which brightness, contrast and saturation change; 0: no change."),
    Key("AUG.RANDOM_ERASING", 0.0, number(0, 1), "Probability that rectangles of the image are erased."),
    Key("AUG.ERASING_MODE", "pixel", choice("pixel", "rand", "const"),
        "What fills an erased rectangle: normal noise in every pixel, one normal colour, or the mean colour."),
    Key("AUG.ERASING_COUNT", 1, integer(1), "Largest number of rectangles per image."),
    Key("AUG.REPEATED_AUG", 1, integer(1),
        "Repeated augmentation: number of differently augmented copies of a drawn image; the epoch keeps its "
        "length."),
    Key("AUG.MIXUP", 0.0, number(0), "Mixup: parameter of its Beta distribution; 0: no mixup."),
    Key("AUG.CUTMIX", 0.0, number(0), "Cutmix: parameter of its Beta distribution; 0: no cutmix."),
    Key("AUG.MIX_PROB", 1.0, number(0, 1), "Probability that a batch is mixed, with AUG.MIXUP or AUG.CUTMIX."),
    Key("AUG.SWITCH_PROB", 0.5, number(0, 1), "Probability of cutmix rather than mixup, if both are on."),
    Key("MODEL.NAME", "cait_xxs24_224", TEXT, "Name of the variant, for logs and files."),
    Key("MODEL.PRETRAINED", "", PATH,
        "Weights to start from: `.pdparams`, `.safetensors` or `.pth`, the suffix may be left out; or the folder of a "
        "run, for its `best_model`."),
    Key("MODEL.RESET_HEAD", False, FLAG,
        "In training, starts with a fresh head if that of MODEL.PRETRAINED has another class count (otherwise "
        "an error), or is known to have classes of other names."),
    Key("MODEL.PATCH_SIZE", 16, integer(1), "Side of a patch in pixels."),
    Key("MODEL.IN_CHANNELS", 3, integer(1), "Channels of the input: 3 reads images as RGB, 1 as grey."),
    Key("MODEL.NUM_CLASSES", 1000, integer(1), "Number of classes."),
    Key("MODEL.EMBED_DIM", 192, integer(1), "Width of the embedding."),
    Key("MODEL.DEPTH", 24, integer(1), "Number of self-attention blocks."),
    Key("MODEL.DEPTH_TOKEN_ONLY", 2, integer(1), "Number of class-attention blocks."),
    Key("MODEL.NUM_HEADS", 4, integer(1), "Attention heads."),
    Key("MODEL.MLP_RATIO", 4.0, number(0, open_low=True), "Hidden width of the MLPs, relative to MODEL.EMBED_DIM."),
    Key("MODEL.MLP_RATIO_TOKEN_ONLY", 4.0, number(0, open_low=True), "The same ratio in the class-attention blocks."),
    Key("MODEL.QKV_BIAS", True, FLAG, "Whether query, key and value have a bias."),
    Key("MODEL.DROPOUT", 0.0, number(0, 0.99), "Dropout of the position embedding, projections and MLPs."),
    Key("MODEL.ATTENTION_DROPOUT", 0.0, number(0, 0.99), "Dropout of the self-attention matrix."),
    Key("MODEL.DROP_PATH", 0.05, number(0, 0.99), "Stochastic depth of every self-attention block."),
    Key("MODEL.INIT_VALUES", 1e-5, number(0, open_low=True), "Initial LayerScale diagonal."),
    Key("TRAIN.NUM_EPOCHS", 100, integer(1), "Length of the run; a resumed run ends here, too."),
    Key("TRAIN.RESUME", "", PATH, "Checkpoint to continue from: a name, or the folder of a run for its `latest`."),
    Key("TRAIN.LAST_EPOCH", None, integer(0, optional=True),
        "With TRAIN.RESUME: the epochs already done, if the checkpoint does not record them."),
    Key("TRAIN.BASE_LR", 5e-4, number(0, open_low=True),
        "Peak learning rate, before TRAIN.LINEAR_SCALED_LR.", finetune=5e-6),
    Key("TRAIN.WARMUP_START_LR", 1e-6, number(0), "Learning rate of the first warm-up epoch, at most the peak."),
    Key("TRAIN.END_LR", 1e-5, number(0), "Learning rate at the end of the cosine, at most the peak.", finetune=1e-6),
    Key("TRAIN.WARMUP_EPOCHS", 5, integer(0), "Epochs of linear warm-up."),
    Key("TRAIN.LR_EPOCH_LATER", False, FLAG,
        "true: each epoch but the first has the learning rate of the previous one, as in the authors' loop; "
        "false: as in timm's."),
    Key("TRAIN.LINEAR_SCALED_LR", 512, integer(1, optional=True),
        "Number of images per step for which BASE_LR holds; it is scaled to the actual number. null: no "
        "scaling."),
    Key("TRAIN.WEIGHT_DECAY", 0.05, number(0),
        "Decoupled weight decay of matrices; biases, norms, LayerScale, class token and position embedding "
        "have none.", finetune=1e-8),
    Key("TRAIN.BETAS", [0.9, 0.999], numbers(0, 0.999999, 2), "AdamW's averaging factors."),
    Key("TRAIN.EPS", 1e-8, number(0, open_low=True), "AdamW's denominator term."),
    Key("TRAIN.SMOOTHING", 0.0, number(0, 0.99), "Label smoothing: share of the target spread over all classes."),
    Key("TRAIN.GRAD_CLIP", None, number(0, optional=True, open_low=True),
        "Largest global norm of the gradients; null: no clipping."),
    Key("TRAIN.ACCUM_ITER", 1, integer(1), "Number of batches whose gradients make one optimizer step."),
    Key("TRAIN.EMA_DECAY", None, number(0, 0.9999999, optional=True),
        "Decay per optimizer step of an average of the weights; null: no average."),
    Key("TRAIN.LAYER_DECAY", 1.0, number(0, 1, open_low=True),
        "Layer-wise learning rate: factor from each layer to the one below it, 1 at the head; 1: the same everywhere."),
    Key("TRAIN.FREEZE", "none", choice("none", "all_but_class_attention", "all_but_head"),
        "What is not trained: nothing; patches, position embedding and self-attention blocks (so that class "
        "attention, last norm and head are trained); or everything but the head."),
    Key("TRAIN.RECOMPUTE", False, FLAG,
        "Keeps only the input of every self-attention block, and computes the rest again in the backward "
        "pass: less memory, about a third more time, the same numbers."),
    Key("TRAIN.QUERY_CHUNK", None, integer(1, optional=True),
        "Number of queries that self-attention computes at a time in training, without keeping the attention "
        "matrix; null: all at once."),
    Key("TRAIN.TF32", False, FLAG,
        "On a GPU, rounds the factors of float32 products to 10 bits of mantissa (TF32), which is faster from "
        "NVIDIA's Ampere on. It applies to training, its teacher and the validation within it, and never to "
        "-eval or -pred."),
    Key("DISTILL.TYPE", "none", choice("none", "hard", "soft"),
        "Whether to learn from a teacher, and from what: its decision (hard) or its probabilities (soft)."),
    Key("DISTILL.TEACHER", "", PATH,
        "A bundle's folder, a program (`.json`, `.pdmodel`), an `.onnx` file, or the name of a `paddle.vision` model."),
    Key("DISTILL.WEIGHTS", "", PATH, "Weights (`.pdparams`) of a teacher from `paddle.vision`."),
    Key("DISTILL.ALPHA", 0.5, number(0, 1), "Share of the teacher in the loss."),
    Key("DISTILL.TAU", 1.0, number(0, open_low=True), "Temperature of soft distillation."),
    Key("EVALUATE.ON_BAD_IMAGE", "wrong", choice("wrong", "skip", "error"),
        "What happens to a validation image that cannot be read. wrong: it counts as wrong in the accuracies, "
        "which remain those of the whole list, and not in the loss. skip: it counts in neither. error: "
        "evaluation stops. The log gives their number."),
    Key("EVALUATE.CONFUSION", False, FLAG,
        "With -eval: writes the accuracy of each class to `per_class.csv`, and the images by label and answer "
        "to `confusion.csv`."),
    Key("PREDICT.IMAGE", "", PATH, "With -pred: one image instead of the test list."),
    Key("PREDICT.TOP_K", 5, integer(1), "Classes shown for each image."),
    Key("EVAL", False, FLAG, "Evaluate MODEL.PRETRAINED on the validation set instead of training."),
    Key("PRED", False, FLAG, "Predict the test images with MODEL.PRETRAINED instead of training."),
    Key("OUTPUT_DIR", "", PATH, "Folder of logs and checkpoints; empty: a new one under `output/`."),
    Key("ON_USED_FOLDER", "error", choice("error", "replace"),
        "What training does if OUTPUT_DIR holds a run: it stops, or replaces that run if it was started with "
        "`replace`, too; any other run is never replaced. For test harnesses, which run again in the same "
        "place."),
    Key("LOG_NAME", "", LOG_NAME,
        "Name of the log in OUTPUT_DIR; empty: `log_train.txt`, `log_eval.txt`, `log_pred.txt`."),
    Key("DEVICE", "auto", choice("auto", "cpu", "gpu"), "Where to compute; auto: on a GPU if there is one."),
    Key("NGPUS", 1, integer(1),
        "Processes to start on this machine: one for each GPU, or several that share the CPU. A launcher has "
        "its own flag."),
    Key("AMP", False, PRECISION, "Trains in mixed precision, on a GPU."),
    Key("AMP_DTYPE", "float16", choice("float16", "bfloat16"), "The half-precision type; float16 scales the loss."),
    Key("AMP_LEVEL", "O1", choice("O1", "O2"),
        "O1: half precision where Paddle lists it as safe; O2: everywhere but in norms and where Paddle lists "
        "it as unsafe."),
    Key("AMP_EVAL", False, FLAG,
        "Evaluates and predicts in mixed precision, too; the authors evaluate M48 in float32."),
    Key("SEED", 0, integer(0, 2**31 - 1), "Seed of every random choice."),
    Key("VISUALDL", False, FLAG, "Also writes the numbers of every epoch for VisualDL, to OUTPUT_DIR/visualdl."),
    Key("PROFILE_STEPS", 0, integer(0),
        "Number of optimizer steps at the start that are profiled, to OUTPUT_DIR/profile."),
    Key("REPORT_FREQ", 100, integer(1), "Steps between two log lines."),
    Key("VALIDATE_FREQ", 1, integer(0),
        "Epochs between two validations; the last epoch is always validated; 0: never."),
    Key("SAVE_FREQ", 10, integer(1), "Epochs between two kept checkpoints `epoch_N`; `latest` is saved every epoch."),
    Key("SAVE_STEPS", 0, integer(0),
        "Optimizer steps between two saves of `latest` within an epoch; 0: only at its end."),
)  # fmt: skip
BY_NAME = {key.name: key for key in KEYS}

CLASSES = "CLASSES"  # what a run records of its classes in its config; no key, for another run may have others


def yaml_text(value: Any) -> str:
    """A value as `-o KEY=VALUE` and YAML files take it, in one line."""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).split("\n")[0]


def markdown_table() -> str:
    """The keys as a Markdown table; docs/config.md holds it."""
    rows = ["| key | default | value | effect |", "|---|---|---|---|"]
    for key in KEYS:
        default = _show(key.default)
        default += "" if key.finetune is None else f"; with -pretrained {_show(key.finetune)}"
        rows.append(f"| `{key.name}` | {default} | {key.kind.text} | {key.help} |")
    return "\n".join(rows) + "\n"


def _show(value: Any) -> str:
    if value == 4 / 3:
        return "4/3"
    if isinstance(value, list):
        return "[" + ", ".join(_show(v) for v in value) + "]"
    return "empty" if value == "" else yaml_text(value)
