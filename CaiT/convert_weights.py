"""Official PyTorch checkpoints to Paddle's format, and back. No torch needed, but for `--to torch`.

python CaiT/convert_weights.py --variant cait_xxs24_224              # download, write CaiT/cait_xxs24_224.pdparams
python CaiT/convert_weights.py XXS24_224.pth --verify                # a local .pth or .safetensors file
python CaiT/convert_weights.py output/best_model.pdparams --to safetensors     # for timm
"""

import interruptible  # noqa: F401  # isort: skip

import argparse
import pathlib
from typing import Any

from cait.command.arguments import ArgumentParser, output_file, path
from cait.command.run import run_command
from cait.errors import UsageError
from cait.files import user_cache

HERE = pathlib.Path(__file__).resolve().parent


def _arguments() -> argparse.Namespace:
    from cait.weights.download import SOURCES

    parser = ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=path, help="a checkpoint, or the folder of a run")
    parser.add_argument("--variant", help="published variant: it is downloaded, or SOURCE must have its sizes")
    parser.add_argument("--from", dest="origin", choices=SOURCES, default="timm", help="publisher of the download")
    parser.add_argument("--base-url", help="a mirror that replaces the publisher's https://host")
    parser.add_argument("--allow-http", action="store_true", help="accept a mirror whose address is not https")
    parser.add_argument("--cache", type=path, help="folder of downloads; default: ~/.cache/cait")
    parser.add_argument("--to", choices=("paddle", "safetensors", "torch"), default="paddle")
    output: dict[str, Any] = {
        "type": output_file(".pdparams", ".safetensors", ".pth"),
        "help": "file to write; default: in CaiT, or beside SOURCE",
    }
    parser.add_argument("--output", **output)
    parser.add_argument("--force", action="store_true", help="replace an existing output")
    parser.add_argument("--verify", action="store_true", help="show a digest of the model's logits for a fixed image")
    args = parser.parse_args()
    if not args.source and not args.variant:
        raise UsageError("name a file, or a published variant with --variant")
    return args


def main() -> None:
    args = _arguments()
    from cait import zoo  # after the flags are checked: importing Paddle takes seconds
    from cait.align.fixed_image import logits_digest
    from cait.weights.download import fetch_variant
    from cait.weights.find import find_weights
    from cait.weights.input_record import read_input
    from cait.weights.read import read_any
    from cait.weights.write import TARGETS, check_target, write_any

    suffix = TARGETS[args.to]
    if args.output is not None:
        check_target(args.output, suffix, args.force)
    expected = zoo.variant_shapes(zoo.variant_config(args.variant)) if args.variant else None
    if args.source is None:
        cache = args.cache or user_cache()
        source = fetch_variant(args.variant, args.origin, args.base_url, cache, args.allow_http)
    else:
        source = find_weights(args.source)
    tensors = read_any(source, expected)
    record = read_input(source, tensors) or (zoo.variant_record(args.variant) if args.variant else None)
    variant = args.variant or zoo.name_of(tensors)
    output = args.output
    if output is None:
        in_place = args.to == "paddle" and variant and source.suffix != suffix
        output = HERE / f"{variant}{suffix}" if in_place else source.with_suffix(suffix)
    write_any(tensors, output, args.force, record)
    size = sum(value.size for value in tensors.values())
    print(f"written: {output}, {variant or 'a CaiT of no published size'}, {len(tensors)} tensors, {size} parameters")
    if args.verify:
        print(logits_digest(read_any(output), record))


if __name__ == "__main__":
    run_command(main)
