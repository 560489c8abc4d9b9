"""Unwraps the weights in a checkpoint: removes what projects wrap around them and put before their names.

All formats are unwrapped alike, whether PyTorch or Paddle wrote them.
"""

import os
import reprlib
from typing import Any

import numpy as np

from cait.errors import CaitError

# Keys under which the weights lie beside an optimizer's state and the like (DeiT, timm, PaddleViT, Lightning).
WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state", "params", "net", "network", "module", "model_ema")
# Left by training on several devices (PyTorch's and Paddle's DataParallel) and by compiling.
PREFIXES = ("module.", "_layers.", "_orig_mod.")
LONGEST_NAME = 200
RENAMED = {"patch_embed.patch_embed.": "patch_embed.proj."}  # PaddleViT's name; all others are the same


def named_tensors(content: Any, source: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint under their names in the model.

    Args:
        content: what a file holds: `{"model": {...}, ...}` and the like, several deep, or names and tensors at once.
        source: for messages.

    Raises:
        CaitError: it holds something other than named tensors.
    """
    for _ in range(len(WRAPPERS)):  # a file may hold itself
        key = next((key for key in WRAPPERS if isinstance(content, dict) and isinstance(content.get(key), dict)), None)
        if key is None:
            break
        content = content[key]
    if not isinstance(content, dict) or not content:
        raise CaitError(f"{source}: holds no named tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise CaitError(f"{source}: {reprlib.repr(name)} is not a named tensor of numbers")
        if len(name) > LONGEST_NAME or not name.isprintable():  # names are shown in messages
            raise CaitError(f"{source}: {reprlib.repr(name)} cannot be the name of a tensor")
    content = dict(content)
    while prefix := next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in content)), ""):
        content = {name.removeprefix(prefix): value for name, value in content.items()}
    for old, new in RENAMED.items():
        content = {new + name.removeprefix(old) if name.startswith(old) else name: v for name, v in content.items()}
    return content
