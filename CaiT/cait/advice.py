"""Advice for errors about missing weights, bundles or downloads. Every such error takes its advice from here.

Each function returns the end of a sentence, which begins with the semicolon.
"""

import os
import pathlib

from cait.variants import list_models

CONVERT = "python CaiT/convert_weights.py"
# Documented at https://hf-mirror.com: every path of huggingface.co, from a server that China reaches.
MIRROR = "https://hf-mirror.com"


def is_published(path: str | os.PathLike) -> bool:
    """Whether a checkpoint has the name of a published variant."""
    return pathlib.Path(path).name.split(".")[0] in list_models()


def without_weights(path: str | os.PathLike) -> str:
    """Says where weights for `path` can come from: the publisher, a mirror, or a random start."""
    name = pathlib.Path(path).name.split(".")[0] if is_published(path) else ""
    random = "python CaiT/prepare_data.py lite --weights=CaiT/{}".format(name or "cait_xxs24_224")
    random += f" -cfg=CaiT/configs/{name}.yaml" if name not in ("", "cait_xxs24_224") else ""
    return (
        f"; `{CONVERT} --variant {name or 'NAME'}` downloads published weights to CaiT/{name or 'NAME'}.pdparams "
        f"(from China with --base-url={MIRROR}); without a network, `{random}` makes images and random weights to try "
        f"the commands with: -data_path=dataset/lite, and dataset/lite/weights/{name or 'cait_xxs24_224'}.pdparams"
    )


def without_bundle(folder: str | os.PathLike) -> str:
    """Names the commands that make a bundle."""
    return (
        f"; `python CaiT/export_model.py --save-inference-dir={folder}` exports one from weights, and `make demo` "
        "trains a small model and exports it, without any download, to output/demo/run-TIME/inference"
    )


def after_failed_download(variant: str, url: str) -> str:
    """Names other sources of a variant's published weights than `url`."""
    sources = {
        MIRROR: f"--from=timm --base-url={MIRROR} (a mirror of Hugging Face that works from China)",
        "https://huggingface.co": "--from=timm",
        "https://dl.fbaipublicfiles.com": "--from=official",
    }
    others = ", ".join(words for host, words in sources.items() if not url.startswith(host))
    return (
        f"; other sources: {others}, any other mirror with --base-url, or a file that you have: "
        f"`{CONVERT} FILE --variant {variant}`; docs/model_zoo.md names more"
    )
