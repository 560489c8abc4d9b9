"""CaiT for PaddlePaddle.

import cait
model = cait.create_model("cait_xxs24_224", pretrained="CaiT/cait_xxs24_224.pdparams")
model.eval()
logits = model(images)      # [B, 3, 224, 224] normalised -> [B, 1000]

`cait.list_models()` names the published variants, and `cait.CaiT` is the model of any size. `import cait` ends in an
ImportError that says how to install PaddlePaddle where it is missing.
"""

import importlib
import os
import zlib  # noqa: F401  (before Paddle: 2.6 exports its own zlib's symbols, and a zlib module loaded later crashes)

from cait.machine.processor import use_avx512_on_amd
from cait.machine.requirement import require_paddle

__version__ = "0.1.0"

require_paddle()

# Before Paddle: NVIDIA's libraries would round float32 products to 10 bits (TF32, PaddlePaddle 2.6's default), which no
# comparison of this project allows. TRAIN.TF32 lets them in training, and NVIDIA_TF32_OVERRIDE=1 in a program of the
# user's.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")

use_avx512_on_amd()

_HOMES = {"CaiT": "cait.model", "create_model": "cait.zoo", "list_models": "cait.variants"}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str):
    # On first use, for Paddle takes seconds to import and a wrong flag should be reported at once.
    if name not in _HOMES:
        raise AttributeError(f"module 'cait' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
