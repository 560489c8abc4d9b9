"""What a weights file says of the images that its model takes, and its tensors do not show: above all the patch grid.

A position embedding of 16 patches may be that of 4 x 4, of 8 x 2 or of 2 x 8. So what saves weights records the grid
with them, and what loads them goes by it. The record is a table of JSON: `grid` [rows, columns], `patch_size`, `heads`
and `channels`; `mean` and `std`, of each channel, where they are known. It stands

- in `.pdparams` and `.pdstates` files under `input` in the record at their end (`cait.weights.trailer`),
- in `.safetensors` files as text under `cait` in their metadata.

Files of others, `.pth` files and those saved before there were such records have none.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from cait.errors import CaitError, shown
from cait.weights.find import STATES, WEIGHTS
from cait.weights.safetensors_file import read_metadata
from cait.weights.torch_file import kind_of_file
from cait.weights.trailer import read_record

FACT = "input"  # in the record of Paddle's files
METADATA = "cait"  # in the metadata of safetensors files
LONGEST = 10_000  # letters of that text
MAX_SIDE, MAX_CHANNELS = 1 << 16, 1 << 10


@dataclasses.dataclass(frozen=True)
class InputRecord:
    """The record.

    Attributes:
        grid: rows and columns of patches; image size = grid * patch_size.
        patch_size: side of a patch in pixels.
        heads: of the attention.
        channels: of the image.
        mean, std: of each channel, for pixels in 0-1, by which images are normalised; None: not known.
    """

    grid: tuple[int, int]
    patch_size: int
    heads: int
    channels: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.grid[0] * self.patch_size, self.grid[1] * self.patch_size

    def facts(self) -> dict[str, Any]:
        """The record as JSON has it; what is not known is left out."""
        return {name: value for name, value in json.loads(json.dumps(dataclasses.asdict(self))).items() if value}


def record_of(model: Any) -> InputRecord:
    """The record of a `CaiT`; mean and std are those of its `pixel_stats`."""
    _, channels, patch_size, _ = model.patch_embed.proj.weight.shape
    heads = (*model.blocks, *model.blocks_token_only)[0].attn.num_heads
    mean, std = (None, None) if model.pixel_stats is None else map(tuple, model.pixel_stats)
    return InputRecord(tuple(model.grid_size), patch_size, heads, channels, mean, std)


def build_record(config: Any) -> InputRecord:
    """The record of the model that a config describes, without making it."""
    model, data = config.MODEL, config.DATA
    rows, columns = (side // model.PATCH_SIZE for side in data.IMAGE_SIZE)
    sizes = model.PATCH_SIZE, model.NUM_HEADS, model.IN_CHANNELS
    return InputRecord((rows, columns), *sizes, tuple(data.MEAN), tuple(data.STD))


def read_input(file: str | os.PathLike, tensors: Mapping[str, Any]) -> InputRecord | None:
    """The record of a weights file or a state; None where it has none.

    Args:
        file: a `.pdparams`, `.pdstates`, `.safetensors` or `.pth` file that can be read.
        tensors: what it holds, in any layout.

    Raises:
        CaitError: the record is malformed, or says otherwise than the tensors.
    """
    file = pathlib.Path(file)
    if file.suffix in (WEIGHTS, STATES):
        content = (read_record(file) or {}).get(FACT)
    else:
        content = _of_text(file, read_metadata(file).get(METADATA)) if kind_of_file(file) == "safetensors" else None
    if content is None:
        return None
    record = _parsed(file, content)
    _check(file, record, {name: tuple(value.shape) for name, value in tensors.items()})
    return record


def in_metadata(record: InputRecord | None) -> dict[str, str]:
    """The entry of a safetensors file's metadata, or none."""
    return {} if record is None else {METADATA: json.dumps(record.facts())}


def in_record(record: InputRecord | None) -> dict[str, Any]:
    """The fact for the record of a Paddle file, or none."""
    return {} if record is None else {FACT: record.facts()}


def _of_text(file: pathlib.Path, text: str | None) -> Any:
    if text is None:
        return None
    try:
        found = json.loads(text) if len(text) <= LONGEST else []
    except (ValueError, RecursionError) as error:
        raise _malformed(file, "it is no JSON") from error
    return [] if found is None else found  # which is no table: a text of null is not the absence of one


def _malformed(file: pathlib.Path, why: str) -> CaitError:
    return CaitError(f"{file}: what it records of grid, patches and channels is malformed ({why}); convert it anew")


def _parsed(file: pathlib.Path, content: Any) -> InputRecord:
    """Fields that a later version adds are left out."""
    if not isinstance(content, dict):
        raise _malformed(file, "it is no table")

    def counts(name: str, value: Any, high: int = MAX_SIDE) -> Any:
        if type(value) is not int or not 1 <= value <= high:
            raise _malformed(file, f"{name} must be from 1 to {high}, not {shown(value)}")
        return value

    grid, channels = content.get("grid"), counts("channels", content.get("channels"), MAX_CHANNELS)
    if not isinstance(grid, list) or len(grid) != 2:
        raise _malformed(file, f"grid must be rows and columns, not {shown(grid)}")
    pixels = {name: content.get(name) for name in ("mean", "std")}
    for name, values in pixels.items():
        if values is not None and not _are_numbers(values, channels):
            raise _malformed(file, f"{name} must be a number for each of {channels} channels, not {shown(values)}")
    return InputRecord(
        tuple(counts("grid", side) for side in grid),
        counts("patch_size", content.get("patch_size")),
        counts("heads", content.get("heads")),
        channels,
        **{name: None if values is None else tuple(map(float, values)) for name, values in pixels.items()},
    )


def _are_numbers(values: Any, count: int) -> bool:
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(type(value) in (int, float) and abs(value) <= 1e6 for value in values)  # which nan is not


def _check(file: pathlib.Path, record: InputRecord, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises CaitError where a tensor shows another number than the record says; a tensor may be missing."""
    rows, columns = record.grid
    for name, place, expected, words in (
        ("pos_embed", 1, rows * columns, f"a grid of {rows}x{columns} patches"),
        ("patch_embed.proj.weight", 1, record.channels, f"{record.channels} channels"),
        ("patch_embed.proj.weight", 2, record.patch_size, f"patches of {record.patch_size} pixels"),
        ("blocks.0.attn.proj_l.weight", 0, record.heads, f"{record.heads} heads"),
    ):
        shape = shapes.get(name, ())
        if len(shape) > place and shape[place] != expected:
            raise CaitError(f"{file}: records {words}, and its {name} has the shape {list(shape)}; convert it anew")


def other_pixels(file: str | os.PathLike, record: InputRecord | None, model: Any) -> list[str]:
    """A warning where images will be normalised otherwise than the record says, or nothing."""
    if record is None or record.mean is None or record.std is None or model.pixel_stats is None:
        return []
    recorded, own = (record.mean, record.std), model.pixel_stats
    pairs = [pair for numbers in zip(recorded, own) for pair in zip(*numbers)]
    if len(own[0]) == record.channels and all(math.isclose(a, b, abs_tol=1e-6) for a, b in pairs):
        return []
    words = "DATA.MEAN {} and DATA.STD {}"
    trained, used = (words.format(*(list(numbers) for numbers in both)) for both in (recorded, own))
    return [f"warning: {file} was trained with {trained}, and images are normalised here with {used}"]
