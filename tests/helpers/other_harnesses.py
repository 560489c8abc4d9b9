"""What harnesses of other Paddle projects make of a parameter file, written anew after reading them.

They go by line numbers, join words by blanks and leave the commands to the shell. PaddleOCR's is the usual one. The
benchmark of each rewrites a copy of the file, runs its training with and without profiling, and hands the log to
PaddlePaddle's collector.
"""

import itertools
import pathlib
import re
import statistics

HEADER = "train_benchmark_params"
NULL = ("", "null", " ")
CHAIN = 51  # lines that PaddleOCR's harness reads
BARE, OTHER_ORDER = (41, 42, 43, 47, 44, 46, 48, 50), (41, 42, 43, 47, 44, 49, 48, 50, 46, 51)


class Lines:
    """A parameter file as these harnesses read it: by number, the key before the first colon, the value behind it."""

    def __init__(self, path):
        self.lines = ["", *path.read_text().splitlines()]

    def key(self, number):
        return self.lines[number].split(":")[0]

    def value(self, number):
        return self.lines[number].split(":")[1]

    def by_mode(self, number, mode):
        """Empty where the line has no value for the mode."""
        pairs = [part.split("=") for part in self.value(number).split("|")]
        return next((pair[1] for pair in pairs if pair[0] == mode), "")

    def word(self, number, text=None):
        """` key=value`, or nothing if either is null."""
        text = self.value(number) if text is None else text
        return "" if text in NULL or self.key(number) in NULL else f" {self.key(number)}={text}"

    def replace(self, number, value):
        self.lines[number] = f"{self.key(number)}:{value}"


def paddleocr(lines, mode, folder):
    """The commands of each row: a dictionary of save folder, train, evaluate, export, and a list `infer`."""
    devices = lines.value(5).split("|")
    for index, gpus in enumerate(lines.value(4).split("|")):
        device = lines.word(5, devices[index] if index < len(devices) else "")
        for autocast, trainer in itertools.product(lines.value(6).split("|"), lines.value(15).split("|")):
            save = f"{folder}/{trainer}_gpus_{gpus}_autocast_{autocast}"
            launch = "" if len(gpus) <= 2 else f" -m paddle.distributed.launch --gpus={gpus}"
            train = f"{lines.value(3)}{launch} {lines.value(16)}{device}{lines.word(8, save)}"
            train += f"{lines.word(7, lines.by_mode(7, mode))}{lines.word(10)}{lines.word(6, autocast)}"
            train += f"{lines.word(9, lines.by_mode(9, mode))}{lines.word(13)}"
            weights = f"{save}/{lines.value(11)}"
            yield {
                "save": save,
                "train": train,
                "evaluate": f"{lines.value(3)} {lines.value(24)}{lines.word(10, weights)}{device}{lines.word(25)}",
                "export": f"{lines.value(3)} {lines.value(30)}{lines.word(29, weights)}{lines.word(28, save)}",
                "infer": cpu_inference(lines, save, lines.value(12)),
            }


def paddleocr_released(lines):
    """The commands of `whole_infer`: the bundle goes to a folder beside the weights, of their name."""
    weights = lines.value(37)
    export = f"{lines.value(3)} {lines.value(38)}{lines.word(29, weights)}{lines.word(28, weights)}"
    return [export, *cpu_inference(lines, weights, lines.value(48))]


def cpu_inference(lines, bundle, images, order=BARE):
    """The commands of inference on the CPU."""
    if "False" not in lines.value(41).split("|"):
        return []
    fixed = {41: "False", 47: bundle, 48: images, 49: f"{bundle}/report"}
    looped = (42, 43, 44, 46)
    commands = []
    for combination in itertools.product(*(lines.value(number).split("|") for number in looped)):
        texts = fixed | dict(zip(looped, combination))
        words = (lines.word(number, texts.get(number, lines.value(number))) for number in order)
        commands.append(f"{lines.value(3)} {lines.value(40)}{''.join(words)}")
    return commands


def paddleclas(lines, folder):
    """The training command of the benchmark: lines 5 and 9 as they stand, one epoch."""
    save = f"{folder}/{lines.value(15)}_gpus_{lines.value(4)}_autocast_{lines.value(6)}"
    train = f"{lines.value(3)} {lines.value(16)}{lines.word(5)}{lines.word(8, save)}{lines.word(7, '1')}"
    yield {"save": save, "train": train + f"{lines.word(10)}{lines.word(6)}{lines.word(9)}{lines.word(13)}"}


def benchmark_items(lines):
    """The five lines after the header: batch sizes, precisions, epochs, the profiler's line, what is exported."""
    first = next(number for number, line in enumerate(lines.lines) if HEADER in line) + 1
    batches, items, epochs = (lines.value(number) for number in (first, first + 1, first + 2))
    profiler = f"{lines.key(first + 3)}:{lines.value(first + 3)}"
    return batches.split("|"), items.split("|"), epochs, profiler, lines.value(first + 4).split(";")


def benchmark(path, family, batch, item, folder):
    """The training command of one combination on one device, with profiling and without."""
    for profiling in (True, False):
        lines = Lines(path)
        _, _, epochs, profiler, _ = benchmark_items(lines)
        for number, value in {24: "null", 30: "null", 3: "python", 4: "0", 6: item}.items():
            lines.replace(number, value)
        by_mode = "" if family == "PaddleClas" else "benchmark_train="
        lines.replace(7, f"{by_mode}{epochs}")
        lines.replace(9, f"{by_mode}{batch}")
        lines.lines[13] = profiler if profiling else f"{profiler.split(':')[0]}:null"
        rows = paddleclas(lines, folder) if family == "PaddleClas" else paddleocr(lines, "benchmark_train", folder)
        yield next(iter(rows))["train"]


def analyse(log, *, skip_steps=2, num_gpus=1):
    """(images a second, loss) that PaddlePaddle's collector finds in a log; 0 where it finds too few records."""
    speeds, loss = [], 0
    for line in pathlib.Path(log).read_text().splitlines():
        words = line.split()
        speeds += [float(words[place + 1]) for place, word in enumerate(words[:-1]) if word == "ips:"][:1]
        loss = next((words[place + 1] for place, word in enumerate(words[:-1]) if word == "loss:"), loss)
    if len(speeds) <= skip_steps + 10:
        return 0, loss
    ordered = sorted(speeds[skip_steps:])
    cut = max(int(len(ordered) * 0.05), 5)
    kept = ordered[cut:-cut]
    return (num_gpus * statistics.mean(kept) if kept else 0), loss


def is_identifier(word):
    """Whether the shell takes `export WORD`."""
    return re.fullmatch(r"[A-Za-z_]\w*(=.*)?", word) is not None
