"""Export a model for Paddle Inference, and prove that the result gives what the model gives.

    python CaiT/export_model.py                     # XXS24 with CaiT/cait_xxs24_224.pdparams, into CaiT/infer
    python CaiT/export_model.py -cfg=output/my_run/config.yaml --model_path=output/my_run/best_model \
        --save-inference-dir=output/my_run/inference --onnx --with-attention

The bundle that is in the folder stays until the new one is proven. That of another model is replaced with --force only.
"""

import interruptible  # noqa: F401  # isort: skip

import pathlib

from cait.command.arguments import ArgumentParser, path
from cait.command.run import run_command

HERE = pathlib.Path(__file__).resolve().parent


def main() -> None:
    from cait.config import read as cfg
    from cait.config.flags import add_key_flag, given_keys
    from cait.weights.find import find_weights

    parser = ArgumentParser(description=__doc__)
    variant = HERE / "configs" / "cait_xxs24_224.yaml"
    parser.add_argument(
        "-cfg", "--config_dir", type=path, default=variant, metavar="YAML", help="config of the model, a YAML file"
    )
    weights = HERE / "cait_xxs24_224"
    names = ("--model_path", "--pretrained", "-pretrained")
    parser.add_argument(*names, type=path, default=weights, help="its weights; the suffix may be left out")
    parser.add_argument("--save-inference-dir", "--save_inference_dir", type=path, default=HERE / "infer")
    parser.add_argument(
        "--precision", choices=("fp32", "fp16", "bf16"), default="fp32", help="default precision of the bundle"
    )
    parser.add_argument("--with-attention", action="store_true", help="also export the class-attention maps")
    parser.add_argument("--onnx", action="store_true", help="also write inference.onnx; needs requirements-onnx.txt")
    parser.add_argument("--no-fused-ops", action="store_true", help="leave out the fused program for CPUs")
    parser.add_argument(
        "--force", action="store_true", help="replace the bundle of another model, or files with such names"
    )
    add_key_flag(parser)
    args = parser.parse_args()
    values = cfg.read_yaml(args.config_dir) | {"MODEL.PRETRAINED": str(args.model_path)}
    config = cfg.make_config(values | {name: value for name, value, _ in given_keys(args)})
    weights = find_weights(config.MODEL.PRETRAINED)
    from cait.data.class_names import shown_classes
    from cait.deploy.bundle import digest_of_bundle
    from cait.deploy.export import build_description, export
    from cait.errors import one_line
    from cait.weights.load import load_weights  # after the flags are checked
    from cait.zoo import build_model

    classes = shown_classes(config)
    model = build_model(config)
    for note in load_weights(model, weights) + classes.notes:
        print(one_line(note))
    print(one_line(f"{len(classes.names)} classes, from {classes.names[0]} to {classes.names[-1]}"))
    description = build_description(config, classes.names, weights, args.precision, args.with_attention)
    differences = export(model, description, args.save_inference_dir, args.onnx, not args.no_fused_ops, args.force)
    for engine, difference in differences.items():
        print(f"{engine}: the outputs differ from the model's by at most {difference:.2e}")
    print(f"exported: {config.MODEL.NAME} to {args.save_inference_dir}")
    print(f"digest, for --trusted-digest of those who run it: {digest_of_bundle(args.save_inference_dir)}")


if __name__ == "__main__":
    run_command(main)
