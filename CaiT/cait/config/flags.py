"""The command line of `main_single_gpu.py`: the flags, `-o KEY=VALUE`, and the config they make."""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from yacs.config import CfgNode

from cait import run_folder
from cait.command.arguments import ArgumentParser, path
from cait.config import keys
from cait.config import read as cfg
from cait.errors import UsageError
from cait.run_folder import CONFIG
from cait.weights.checkpoints import check_can_resume
from cait.weights.find import find_weights

FLAGS = {
    "-dataset": "DATA.DATASET",
    "-batch_size": "DATA.BATCH_SIZE",
    "-image_size": "DATA.IMAGE_SIZE",
    "-data_path": "DATA.DATA_PATH",
    "-ngpus": "NGPUS",
    "-pretrained": "MODEL.PRETRAINED",
    "-resume": "TRAIN.RESUME",
    "-last_epoch": "TRAIN.LAST_EPOCH",
    "-epochs": "TRAIN.NUM_EPOCHS",
    "-output_dir": "OUTPUT_DIR",
}
SWITCHES = {"-eval": "EVAL", "-pred": "PRED", "-amp": "AMP"}  # true without a value


class KeyFlag(argparse.Action):
    """A flag that sets keys of the config. It collects (key, text, flag) of them all; the last one wins."""

    def __call__(self, parser, namespace, values, option_string=None):
        for word in values if isinstance(values, list) else [values]:
            name, text = FLAGS.get(self.dest, SWITCHES.get(self.dest)), word
            if name is None:  # -o
                name, equals, text = word.partition("=")
                if not equals:
                    raise UsageError(f"-o {word}: must be KEY=VALUE")
            namespace.overrides.append((name, text, option_string))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Train a CaiT, evaluate it (-eval) or predict with it (-pred).",
        epilog="Every key, its default and its effect: docs/config.md.",
    )
    model = "which model, or which run; without it, CaiT XXS24 at 224"
    parser.add_argument("-cfg", type=path, metavar="YAML", help=model)
    for flag, name in {**FLAGS, **SWITCHES}.items():
        optional: dict[str, Any] = {"nargs": "?", "const": "true"} if flag in SWITCHES else {}
        parser.add_argument(flag, dest=flag, action=KeyFlag, metavar="VALUE", help=f"sets {name}", **optional)
    add_key_flag(parser)
    return parser


def add_key_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `-o KEY=VALUE [KEY=VALUE ...]`; `given_keys` reads what was given."""
    parser.set_defaults(overrides=[])
    parser.add_argument("-o", dest="-o", nargs="+", action=KeyFlag, metavar="KEY=VALUE", help="sets any config key")


def given_keys(args: argparse.Namespace) -> list[tuple[str, Any, str]]:
    """(key, parsed value, flag) of all flags that set keys, in the order of the command line.

    Raises:
        UsageError: an unknown key or a wrong value.
    """
    return [(name, cfg.parse_override(name, text, flag), flag) for name, text, flag in args.overrides]


def check_checkpoints(config: CfgNode) -> None:
    """Checks that the checkpoint that a job starts from is there, before its data is read and Paddle is loaded.

    Raises:
        CaitError: it is not.
    """
    if config.TRAIN.RESUME:
        check_can_resume(config.TRAIN.RESUME)
    elif config.MODEL.PRETRAINED:
        find_weights(config.MODEL.PRETRAINED)


def parse_command(arguments: Sequence[str]) -> CfgNode:
    """The config that a command line describes.

    `-resume` starts from the config that was saved beside the checkpoint, so the flags of the first run need not
    be repeated; those that are given count. A `-cfg` beside it may add keys, but not change any: it may be the file
    that the run was started with, and would then undo the flags of that time.

    Raises:
        UsageError: an unknown flag or key, a wrong value, keys that do not go together, or a `-cfg` that differs from
            the config of the resumed run.
    """
    args = _parser().parse_args(arguments)
    values = cfg.read_yaml(args.cfg) if args.cfg is not None else {}
    given = given_keys(args)
    overrides = {name: value for name, value, _ in given}
    if overrides.get("TRAIN.RESUME") and overrides.get("MODEL.PRETRAINED"):
        raise UsageError("-resume takes its weights from the checkpoint: leave out -pretrained, or start a new run")
    resume = overrides.get("TRAIN.RESUME", values.get("TRAIN.RESUME", ""))
    if resume:
        saved = run_folder.run_folder(resume) / CONFIG
        if saved.is_file():
            before = cfg.read_yaml(saved) | {"OUTPUT_DIR": str(saved.parent)}
            _check_agree(args.cfg, values, saved, before, overrides)
            values = before | values
    job = values | overrides
    for name, value, flag in given:
        values[name] = value
        if flag == "-batch_size" and (job.get("EVAL") or job.get("PRED")):
            values["DATA.BATCH_SIZE_EVAL"] = value  # it means the batches of this job
        if flag == "-amp" and (job.get("EVAL") or job.get("PRED")):
            values["AMP_EVAL"] = value
    return cfg.make_config(values)


def _check_agree(
    yaml: pathlib.Path | None,
    values: Mapping[str, Any],
    saved: pathlib.Path,
    before: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> None:
    """Demands that a YAML file changes nothing in the saved config of a resumed run that no flag says too."""
    free = {"OUTPUT_DIR", *overrides}
    names = [name for name, value in values.items() if name in before and name not in free and value != before[name]]
    if names:
        shown = [f"{name} {keys.yaml_text(values[name])}, not {keys.yaml_text(before[name])}" for name in names[:3]]
        shown += [f"and {len(names) - 3} more"] if len(names) > 3 else []
        raise UsageError(
            f"-cfg={yaml} changes the config of the resumed run, {saved}: {', '.join(shown)}; leave out -cfg to go on "
            f"as before, or say what is to change by flags, such as -o {names[0]}={keys.yaml_text(values[names[0]])}"
        )
