"""Parameter files: lines addressed by their number, checked against a schema before anything runs."""

import os
import pathlib
import re
import shlex
from typing import NamedTuple

from cait.errors import UsageError
from cait.files import read_text
from harness.rows import impossible_rows, is_amp

MODES = ("lite_train_lite_infer", "lite_train_whole_infer", "whole_train_whole_infer", "whole_infer", "benchmark_train")
TRAINERS = {"norm_train": 16, "pact_train": 17, "fpgm_train": 18, "distill_train": 19, "to_static_train": 20}
EXPORT_OF = {16: 30, 17: 31, 18: 32, 19: 33, 20: 30}  # line of the trainer -> line of its export
CHAIN_LINES, ALL_LINES = 51, 60


class Rule(NamedTuple):
    """What a line must be: one of the keys, a value that matches, and the words for such a value.

    Attributes:
        by_mode: the value may be `mode=v|mode=v`.
    """

    keys: tuple[str, ...]
    value: str = r".+"
    words: str = "a value"
    by_mode: bool = False


def _choices(*words: str) -> tuple[str, str]:
    one = f"(?:{'|'.join(map(re.escape, words))})"
    return rf"{one}(?:\|{one})*", f"{' or '.join(words)}; several with | between"


_INTEGERS = r"[1-9]\d*(?:\|[1-9]\d*)*", "a whole number from 1; several with | between"
_DEVICES = r"(?:-1|\d+(?:,\d+)*|[^|;,]+(?:,[^|;,]+)*;\d+(?:,\d+)*)"
_COMMAND = r"\S.*", "a command"
_NOTHING = Rule(("null",), "null", "null")

RULES: dict[int, Rule] = {
    2: Rule(("model_name",), r"\w[\w.-]*", "a name of letters, digits, `_`, `.` and `-`"),
    3: Rule(("python",), r"\S+", "the name of a Python interpreter"),
    4: Rule(("gpu_list",), rf"{_DEVICES}(?:\|{_DEVICES})*", "-1, GPU numbers, or hosts;GPU numbers, with | between"),
    5: Rule(("DEVICE", "null"), *_choices("cpu", "gpu", "auto", "null")),
    6: Rule(("AMP", "-amp", "null"), *_choices("null", "False", "True", "fp32", "fp16", "amp")),
    7: Rule(("TRAIN.NUM_EPOCHS", "-epochs"), r"[1-9]\d*", "a whole number from 1", by_mode=True),
    8: Rule(("OUTPUT_DIR", "-output_dir")),
    9: Rule(("DATA.BATCH_SIZE", "-batch_size"), r"[1-9]\d*", "a whole number from 1", by_mode=True),
    10: Rule(("MODEL.PRETRAINED", "-pretrained")),
    11: Rule(("train_model_name",), r"[^/\s]+", "the name of a checkpoint"),
    12: Rule(("train_infer_img_dir",), r".+", "a folder or list of images"),
    13: _NOTHING,
    15: Rule(("trainer",), *_choices(*TRAINERS)),
    **{line: Rule((name,), *_COMMAND) for name, line in TRAINERS.items()},
    21: _NOTHING,
    24: Rule(("eval",), *_COMMAND),
    25: _NOTHING,
    28: Rule(("--save-inference-dir", "--save_inference_dir")),
    29: Rule(("--model_path", "--pretrained", "-pretrained")),
    **{
        line: Rule((name,), *_COMMAND)
        for line, name in enumerate(("norm_export", "quant_export", "fpgm_export", "distill_export"), 30)
    },
    34: Rule(("kl_quant",), *_COMMAND),
    35: Rule(("export2",), *_COMMAND),
    36: Rule(("inference_dir",), r"[^/\s]+", "the name of a subfolder, or null"),
    37: Rule(("infer_model",), r".+", "weights, or null"),
    38: Rule(("infer_export",), *_COMMAND),
    39: Rule(("infer_quant",), *_choices("True", "False")),
    40: Rule(("inference",), *_COMMAND),
    41: Rule(("--use_gpu",), *_choices("True", "False")),
    42: Rule(("--enable_mkldnn",), *_choices("True", "False")),
    43: Rule(("--cpu_threads",), *_INTEGERS),
    44: Rule(("--batch_size",), *_INTEGERS),
    45: Rule(("--use_tensorrt",), *_choices("True", "False")),
    46: Rule(("--precision",), *_choices("fp32", "fp16", "bf16")),
    47: Rule(("--model_dir",)),
    48: Rule(("--image_dir",), r".+", "a folder or list of images"),
    49: Rule(("--save_log_path",)),
    50: Rule(("--benchmark",), *_choices("True", "False", "null")),
    51: _NOTHING,
    52: _NOTHING,
    54: Rule(("batch_size",), *_INTEGERS),
    55: Rule(("fp_items",), *_choices("fp32", "fp16")),
    56: Rule(("epoch",), r"[1-9]\d*", "a whole number from 1"),
    57: Rule(("PROFILE_STEPS", "null"), r"[1-9]\d*", "a whole number from 1"),
    58: Rule(("flags",), r"FLAGS_\w+=[^;=]+(?:;FLAGS_\w+=[^;=]+)*", "null, or FLAGS_name=value with ; between"),
    59: Rule(("model_type",), *_choices(*TRAINERS)),
    60: Rule(("num_workers",), r"\d+", "a whole number from 0, or null"),
}
HEADERS = {1: "train_params", 23: "eval_params", 27: "infer_params", 53: "train_benchmark_params"}
FILLERS = (14, 22, 26)
NEVER_NULL = (
    2,
    3,
    4,
    7,
    9,
    11,
    12,
    15,
    24,
    40,
    41,
    48,
    54,
    55,
    56,
    59,
)  # of the others, null leaves the word or step out
KEY_LINES = (5, 6, 7, 8, 9, 10)  # keys of the training script


class LineFile:
    """A file of lines `key:value`, each with its own rule.

    Args:
        path: of the file.

    Raises:
        UsageError: a line is missing, blank, or not what its number asks for; the message names it.
    """

    rules: dict[int, Rule]
    headers: dict[int, str]
    fillers: tuple[int, ...] = ()
    never_null: tuple[int, ...]
    lengths: tuple[int, ...]

    def __init__(self, path: str | os.PathLike):
        self.path = path
        text = read_text(path)
        before, carriage_return, _ = pathlib.Path(path).read_bytes().partition(b"\r")
        if carriage_return:
            self._fail(
                before.count(b"\n") + 1, "ends as on Windows (CRLF); a shell would take that for a part of the value"
            )
        self._lines = text.removesuffix("\n").split("\n")
        for number, line in enumerate(self._lines, 1):
            self._check_line(number, line)
        if len(self._lines) not in self.lengths:
            wanted = " or ".join(map(str, self.lengths))
            self._fail(len(self._lines) + 1, f"is missing; the file must have {wanted} lines")
        self._check_together()

    def _fail(self, number: int, what: str) -> None:
        raise UsageError(f"{self.path}: line {number}: {what}")

    def _check_line(self, number: int, line: str) -> None:
        if not line.strip():
            self._fail(number, "is blank; readers of this format drop blank lines, and all that follow would shift")
        if number > max(self.lengths):
            self._fail(number, f"is one too many; the file has {max(self.lengths)} lines")
        if number in self.headers:
            if not re.fullmatch(f"=+{self.headers[number]}=+", line):
                self._fail(number, f"must be ==={self.headers[number]}===, not {line!r}{self._shift(number, line)}")
        elif number in self.fillers:
            if line != "##":
                self._fail(number, f"must be ##, not {line!r}{self._shift(number, line)}")
        else:
            self._check_pair(number, line)

    def _check_pair(self, number: int, line: str) -> None:
        rule = self.rules[number]
        key, colon, value = line.partition(":")
        if not colon or key not in rule.keys:
            wanted = " or ".join(f"{key}:" for key in rule.keys)
            self._fail(number, f"must begin with {wanted} and not be {line!r}{self._shift(number, line)}")
        if value != value.strip():
            self._fail(number, f"has blanks around the value of {key}")
        if ":" in value:
            self._fail(number, f"the value of {key} holds a `:`, which ends a value for other readers of this format")
        if rule.by_mode and "=" in value:
            self._check_by_mode(number, key, value)
        elif value in ("", "null"):
            if number in self.never_null:
                self._fail(number, f"{key} must be {rule.words}, not {value or 'nothing'}")
        elif not re.fullmatch(rule.value, value):
            self._fail(number, f"{key} must be {rule.words}, not {value!r}")

    def _check_by_mode(self, number: int, key: str, value: str) -> None:
        rule = self.rules[number]
        for part in value.split("|"):
            mode, _, choice = part.partition("=")
            if mode not in MODES:
                self._fail(number, f"unknown mode {mode!r}; there are {', '.join(MODES)}")
            if not re.fullmatch(rule.value, choice):
                self._fail(number, f"{key} of {mode} must be {rule.words}, not {choice!r}")

    def _shift(self, number: int, line: str) -> str:
        """A hint, where the line would be right one place further down or up."""
        key = line.partition(":")[0]
        for step, words in ((1, "a line before it is missing"), (-1, "there is a line too many before it")):
            place = number + step
            fits = key != "null" and place in self.rules and key in self.rules[place].keys
            fits = fits or (place in self.headers and self.headers[place] in line)
            if fits or (place in self.fillers and line == "##"):
                return f" ({words}?)"
        return ""

    def _check_together(self) -> None:
        """What lines must have in common; nothing, if not said otherwise."""

    def key(self, number: int) -> str:
        """What stands before the colon."""
        return self._lines[number - 1].partition(":")[0]

    def value(self, number: int, mode: str = "") -> str:
        """What stands after the colon, or for `mode=v|mode=v` what belongs to the mode; empty for null.

        Raises:
            UsageError: the line has values by mode, and none for this one.
        """
        text = self._lines[number - 1].partition(":")[2]
        if self.rules[number].by_mode and "=" in text:
            choices = dict(part.split("=", 1) for part in text.split("|"))
            if mode not in choices:
                self._fail(number, f"{self.key(number)} has no value for {mode}")
            text = choices[mode]
        return "" if text == "null" else text

    def values(self, number: int) -> list[str]:
        """The alternatives of a line, `null` among them as it stands."""
        return self._lines[number - 1].partition(":")[2].split("|")

    def words(self, number: int) -> list[str]:
        """The words of a command; none for null. Quotes hold words with blanks together."""
        return shlex.split(self.value(number))

    def pair(self, number: int, value: str | os.PathLike | None = None, mode: str = "") -> list[str]:
        """The word `key=value`, or none if key or value is null or empty."""
        text = self.value(number, mode) if value is None else str(value)
        is_set = text not in ("", "null") and self.key(number) not in ("", "null")
        return [f"{self.key(number)}={text}"] if is_set else []


class Parameters(LineFile):
    """The parameter file of training and inference."""

    rules, headers, fillers, never_null = RULES, HEADERS, FILLERS, NEVER_NULL
    lengths = (CHAIN_LINES, ALL_LINES)

    def _check_together(self) -> None:
        if len(self.values(5)) not in (1, len(self.values(4))):
            self._fail(5, f"has {len(self.values(5))} values for the {len(self.values(4))} of gpu_list on line 4")
        for number, reason in impossible_rows(self, self.values(55) if self.has_benchmark else ()):
            self._fail(number, reason)
        self._check_commands()
        if self.has_benchmark:
            self._check_benchmark()
        if "-eval" not in self.words(24):
            self._fail(24, "must have the word -eval; prediction is run with -pred in its place")

    def _check_commands(self) -> None:
        for number in (*TRAINERS.values(), 24, *range(30, 36), 38, 40):
            try:
                self.words(number)
            except ValueError as error:
                self._fail(number, f"is no command ({error})")
        for name in self.values(15):
            if not self.words(TRAINERS[name]):
                self._fail(TRAINERS[name], f"{name} is on line 15, but its command is null")
        for number in (*(TRAINERS[name] for name in self.values(15)), 24):
            takes_bare_words = "-o" in self.words(number)
            for line in KEY_LINES:
                if takes_bare_words == self.key(line).startswith("-"):
                    form = "a KEY without a dash" if takes_bare_words else "a flag with a dash"
                    has = "has" if takes_bare_words else "has no"
                    self._fail(line, f"{self.key(line)} must be {form}: the command on line {number} {has} -o")

    def _check_benchmark(self) -> None:
        if self.key(6) == "null" and (item := next(filter(is_amp, self.values(55)), None)):
            self._fail(55, f"{item} is mixed precision, but line 6 has no key for it")
        if not self.words(TRAINERS[self.value(59)]):
            self._fail(59, f"the command of {self.value(59)} on line {TRAINERS[self.value(59)]} is null")

    @property
    def has_benchmark(self) -> bool:
        """Whether the benchmark tail is there."""
        return len(self._lines) == ALL_LINES
