"""Serve an exported bundle over HTTP: a page to look at images with, and an interface for programs.

    python CaiT/serve.py                                          # bundle in CaiT/infer, http://127.0.0.1:8000/
    CAIT_TOKEN=secret python CaiT/serve.py --model_dir=output/my_run/inference --host=0.0.0.0 --port=8080

Ctrl-C or SIGTERM ends it after the accepted requests finish. docs/serve.md describes its interface.
"""

import interruptible  # noqa: F401  # isort: skip

import argparse
import os
import pathlib
import sys

from cait.command.arguments import (
    ArgumentParser,
    above_zero,
    add_bundle_flags,
    host,
    port,
    positive,
    seconds,
    text_path,
    token,
)
from cait.command.run import run_command
from cait.errors import UsageError

MB = 1_000_000


def _arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    add_bundle_flags(parser, pathlib.Path(__file__).resolve().with_name("infer"))
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: all addresses of this machine"
    )
    parser.add_argument("--port", type=port, default=8000, help="port to listen on; 0: any free one")
    secret = "that is asked for; as CAIT_TOKEN in the environment it does not show among the processes"
    parser.add_argument("--token", type=token, default=os.environ.get("CAIT_TOKEN"), help=secret)
    parser.add_argument("--max-batch", type=positive, default=8, help="images per call of the predictor")
    parser.add_argument(
        "--max-wait", type=seconds, default=0.002, help="seconds that an image waits for others to join its batch"
    )
    parser.add_argument(
        "--max-queue", type=positive, default=128, help="images accepted at a time; more get status 503"
    )
    parser.add_argument("--max-images", type=positive, default=16, help="images per request")
    parser.add_argument("--max-upload", type=positive, default=32, help="megabytes per request")
    parser.add_argument("--max-pixels", type=positive, help="pixels per image; default: as infer.py")
    names = "by which the service may be called, beside localhost and addresses; may stand again; *: any"
    parser.add_argument("--allowed-host", type=host, action="append", default=[], metavar="NAME", help=names)
    parser.add_argument("--decode-timeout", type=above_zero, default=10.0, help="seconds to decode an image")
    parser.add_argument("--decode-memory", type=positive, default=2000, help="megabytes to decode an image")
    parser.add_argument(
        "--read-timeout",
        type=above_zero,
        default=30.0,
        help="seconds for the head of a request to arrive, and again for its body",
    )
    parser.add_argument(
        "--write-timeout", type=above_zero, default=30.0, help="seconds in which a caller must read some of its answer"
    )
    parser.add_argument("--timeout", type=above_zero, default=30.0, help="seconds for the answer after that")
    parser.add_argument("--samples", type=text_path, help="image, folder, pattern or list that the page offers to try")
    parser.add_argument(
        "--top-k", "--top_k", type=positive, default=5, help="classes per image, if a request does not say"
    )
    args = parser.parse_args()
    if args.max_images > args.max_queue:
        raise UsageError("--max-queue must have room for the images of one request, --max-images")
    return args


def main() -> None:
    args = _arguments()
    from cait.deploy import bundle, classify
    from cait.deploy.engine import Engine
    from cait.deploy.predictor import Predictor
    from cait.machine.device import has_gpu
    from cait.serve import decoder, http_server  # after the flags are checked
    from cait.serve.app import Settings, create_app
    from cait.serve.counters import ServiceMetrics
    from cait.serve.samples import read_samples
    from cait.serve.service import Service

    listener = http_server.open_socket(args.host, args.port)
    if not args.token and not http_server.is_loopback(listener):
        print("warning: whoever reaches this address can use the service; --token protects it", file=sys.stderr)
    use_gpu = has_gpu() if args.use_gpu is None else args.use_gpu
    engine = Engine(use_gpu, True, args.cpu_threads, args.precision, False, args.max_batch, not args.no_fused_ops)
    predictor = Predictor(args.model_dir, engine, True, bundle.read_description(args.model_dir, args.trusted_digest))
    print(predictor.program, file=sys.stderr)
    read = classify.Reader(predictor.description, args.exif, args.max_pixels or classify.MAX_PIXELS)
    metrics = ServiceMetrics(predictor.description)
    limits = decoder.DecodeLimits(args.decode_timeout, args.decode_memory)
    service = Service(predictor, read, metrics, args.max_batch, args.max_wait, args.max_queue, limits)
    service.warm_up()
    samples = read_samples(args.samples, read) if args.samples else ()
    reached = (http_server.addresses_for_others(listener), http_server.hosts(listener, args.allowed_host))
    rest = (args.read_timeout, args.timeout, args.top_k, args.token, samples, *reached)
    app = create_app(service, Settings(args.max_upload * MB, args.max_images, *rest), args.exif)
    http_server.run(app, service, listener, http_server.Bounds(args.read_timeout, args.write_timeout))


if __name__ == "__main__":
    run_command(main)
