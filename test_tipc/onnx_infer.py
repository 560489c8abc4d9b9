"""Classify images with the ONNX program of a bundle, through ONNX Runtime on the CPU.

python test_tipc/onnx_infer.py --model_dir=output/my_run/inference --image_dir=photos --batch_size=4
"""

import harness  # noqa: F401  (first: it makes the project's package known)
from cait.command.arguments import ArgumentParser, path, positive, text_path
from cait.command.run import run_command
from cait.errors import CaitError


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model_dir", type=path, required=True, help="folder with inference.onnx and inference.yaml")
    parser.add_argument("--image_dir", type=text_path, required=True)
    parser.add_argument("--batch_size", type=positive, default=1)
    args = parser.parse_args()
    from cait.deploy.bundle import read_description  # after the flags are checked
    from cait.deploy.classify import Reader, classify, find_images
    from cait.deploy.onnx_file import OnnxPredictor
    from cait.records.predictions import result_line

    description = read_description(args.model_dir)
    predict = OnnxPredictor(args.model_dir, description)
    reader, failed = Reader(description, apply_exif=False), 0
    for result in classify(predict, reader, find_images(args.image_dir), args.batch_size, top_k=1):
        failed += bool(result.error)
        shown = [result_line(result.path, i, description.class_names[i], prob) for i, prob in result.classes]
        print(result.error or shown[0])
    if failed:
        raise CaitError(f"{failed} images could not be read")


if __name__ == "__main__":
    run_command(main)
