"""Compiles the operators into a folder, in a process of its own: `python -m cait.ops.build FOLDER`."""

import pathlib
import shutil
import sys

from paddle.utils import cpp_extension

from cait.ops.library import COMPILER_FLAGS, LIBRARY, LINKER_FLAGS, NAME, SOURCE_FOLDER, WRAPPERS


def build(folder: pathlib.Path) -> None:
    """Leaves the library and Paddle's Python functions for its operators in the folder."""
    module = cpp_extension.load(
        NAME,
        [str(path) for path in sorted(SOURCE_FOLDER.glob("*.cc"))],
        extra_cxx_cflags=list(COMPILER_FLAGS),
        extra_ldflags=list(LINKER_FLAGS),
        build_directory=str(folder),
        verbose=True,
    )
    shutil.copyfile(module.__file__, folder / WRAPPERS)  # Paddle removes its own at exit
    built = [path for path in folder.rglob(LIBRARY) if path.is_file()]
    shutil.copyfile(built[0], folder / LIBRARY)


if __name__ == "__main__":
    build(pathlib.Path(sys.argv[1]).resolve())
