"""What is compiled on the user's machine, under the compiler's address and undefined-behaviour sanitizers."""

import concurrent.futures
import shutil
import subprocess

import pytest

from cait.data import pixels
from cait.ops import library
from project import ROOT

FLAGS = ["-O1", "-g1", "-std=c++17", "-pthread", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def compile_and_run(folder, sources, *flags):
    """Objects of (source, more flags) each, two at a time; what their program does."""

    def compile_one(number):
        source, *more = sources[number]
        words = ["g++", *FLAGS, *flags, *more, "-c", str(source), "-o", str(folder / f"{number}.o")]
        return subprocess.run(words, capture_output=True, text=True)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for result in pool.map(compile_one, range(len(sources))):
            assert result.returncode == 0, result.stderr
    objects = [str(folder / f"{number}.o") for number in range(len(sources))]
    linked = subprocess.run(["g++", *FLAGS, *objects, "-o", str(folder / "program")], capture_output=True, text=True)
    assert linked.returncode == 0, linked.stderr
    return subprocess.run([str(folder / "program")], capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module", autouse=True)
def sanitizers(tmp_path_factory):
    """Skips the tests where there are none, and shows that they see what they are for."""
    if not shutil.which("g++"):
        pytest.skip("there is no compiler (g++)")
    for number, line in enumerate(
        ("volatile char* a = new char[n]; return a[n]", "volatile int most = 2147483647; return most + n")
    ):
        folder = tmp_path_factory.mktemp("faulty")
        (folder / "faulty.cc").write_text(f"int main(int n, char**) {{ {line}; }}")
        try:
            found = compile_and_run(folder, [[folder / "faulty.cc"]])
        except AssertionError as error:
            pytest.skip(f"this compiler has no sanitizers: {str(error)[:200]}")
        assert found.returncode and ("AddressSanitizer", "runtime error")[number] in found.stderr


@pytest.mark.slow
def test_kernels_and_loops_have_nothing_that_sanitizers_find(tmp_path):
    kernels = [[path] for path in sorted(library.SOURCE_FOLDER.glob("*.cc")) if path.name != "operators.cc"]
    names = [[f"-Dcait_{word}=cait_{word}_{name}" for word in ("resize", "transform")] for name in pixels.INSTRUCTIONS]
    loops = [
        [pixels.SOURCE, "-ffp-contract=off", *(f"-m{flag}" for flag in flags), *words]
        for flags, words in zip(pixels.INSTRUCTIONS.values(), names)
    ]
    # The linker keeps the first of the same inline functions: that for any processor, and AVX2 before AVX-512.
    sources = [[ROOT / "tests" / "helpers" / "sanitized.cc"], *kernels, *loops[::-1]]
    result = compile_and_run(tmp_path, sources, f"-I{library.SOURCE_FOLDER}")
    assert result.returncode == 0 and not result.stderr, result.stderr[-5000:]
    assert "kernels portable" in result.stdout and "loops" in result.stdout, result.stdout
