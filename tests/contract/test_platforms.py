"""What works on systems that lack what Linux has."""

import subprocess
import sys

import pytest

from cait.machine.processor import peak_mb
from project import MAIN, ROOT

# Paddle comes first, which may need such modules itself where they are.
SCRIPT = """
import runpy, sys
sys.path[0] = FOLDER
import cait, paddle
for name in ("fcntl", "resource"):
    sys.modules[name] = None
for words in COMMANDS:
    sys.argv = words
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""


def test_training_and_inference_need_no_module_that_only_unix_has(tiny_yaml, tiny_bundle, digits, tmp_path):
    run = [MAIN, f"-cfg={tiny_yaml}", f"-data_path={digits}", f"-output_dir={tmp_path / 'run'}", "-epochs=1"]
    infer = [str(ROOT / "CaiT" / "infer.py"), f"--model_dir={tiny_bundle}", f"--img-path={digits / 'val'}"]
    infer += ["--benchmark=True"]
    settings = f"COMMANDS, FOLDER = {[run, infer]!r}, {str(ROOT / 'CaiT')!r}"
    result = subprocess.run([sys.executable, "-c", settings + SCRIPT], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "best_model.pdparams").is_file() and "cpu_rss(MB): " in result.stdout


def test_the_memory_of_this_process_is_what_the_system_says(tmp_path):
    (tmp_path / "status").write_text("Name: a\nVmHWM:   2048 kB\n")
    assert peak_mb(tmp_path / "status") == 2.0 and peak_mb(tmp_path / "none") is None
    measured = peak_mb()
    if measured is None:
        pytest.skip("this system does not tell")
    assert measured > 50  # Paddle is imported
