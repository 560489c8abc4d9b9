"""Compiles the operators into a folder, in a process of its own: `python -m cait.ops.build FOLDER`."""

import os
import pathlib
import shutil
import sys

from paddle.utils import cpp_extension
from paddle.utils.cpp_extension import extension_utils

from cait.ops.library import COMPILER_FLAGS, LIBRARY, LINKER_FLAGS, NAME, OPERATORS, SOURCE_FOLDER, WRAPPERS


def build(folder: pathlib.Path) -> None:
    """Leaves the library and Paddle's Python functions for its operators in the folder.

    `cpp_extension.load` is not used: it hands the paths of the interpreter and the folder to a shell without quotes.
    """
    os.chdir(folder)  # setuptools writes its `build` here
    extension = cpp_extension.CppExtension(
        [str(path) for path in sorted(SOURCE_FOLDER.glob("*.cc"))],
        extra_compile_args={"cxx": list(COMPILER_FLAGS), "nvcc": []},
        extra_link_args=list(LINKER_FLAGS),
    )
    settings = {"output_dir": str(folder / "built"), "no_python_abi_suffix": True}
    commands = {"build_ext": cpp_extension.BuildExtension.with_options(**settings)}
    cpp_extension.setup(name=NAME, ext_modules=[extension], cmdclass=commands, script_args=["build"])
    (built,) = [path for path in (folder / "built").rglob(LIBRARY) if path.is_file()]
    shutil.copyfile(built, folder / LIBRARY)
    # Loaded where it was built: PaddlePaddle 3 has loaded it there already, and a second library would end the process.
    cpp_extension.load_op_meta_info_and_register_op(str(built))
    module = extension_utils._generate_python_module(NAME, OPERATORS, str(folder))
    shutil.copyfile(module.__file__, folder / WRAPPERS)  # Paddle removes its own at exit


if __name__ == "__main__":
    build(pathlib.Path(sys.argv[1]).resolve())
