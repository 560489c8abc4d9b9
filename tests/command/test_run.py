"""How a command ends on the errors that others raise."""

import pytest

from cait.command.run import MEMORY_ADVICE, outcome
from cait.config.read import make_config
from project import MAIN, ROOT, run_python

# As PaddlePaddle and NVIDIA's libraries say it.
GPU = (
    "\n\nResourceExhaustedError: \n\nOut of memory error on GPU 1. Cannot allocate 2.250000GB memory on GPU 1, 38.9GB "
    "memory has been allocated and available memory is only 512.000000MB.\n\nPlease check whether there is any other "
    "process using GPU 1.\n (at ../paddle/fluid/memory/allocation/cuda_allocator.cc:86)\n"
)
CPU = (
    "(ResourceExhausted) Fail to alloc memory of 281474976710656 size, error code is 12.\n  [Hint: Expected error == 0]"
)
ERRORS = [
    (MemoryError(GPU), " on GPU 1"),
    (SystemError(GPU), " on GPU 1"),
    (OSError("(External) CUDA error(2), out of memory. \n  [Hint: 'cudaErrorMemoryAllocation'."), " on the GPU"),
    (OSError("(External) CUBLAS error(3). \n  [Hint: 'CUBLAS_STATUS_ALLOC_FAILED'."), " on the GPU"),
    (RuntimeError("(External) CUDNN error(4), CUDNN_STATUS_ALLOC_FAILED."), " on the GPU"),
    (MemoryError(CPU), ""),
    (MemoryError(), ""),
]


@pytest.mark.parametrize("error, where", ERRORS, ids=str)
def test_where_memory_runs_out_one_sentence_says_what_to_change(error, where):
    sentence, exit_code = outcome(error)
    assert sentence == f"there is not enough memory{where}; {MEMORY_ADVICE}" and exit_code == 1
    assert "\n" not in sentence


@pytest.mark.parametrize("error", [RuntimeError("CUDA error(700), an illegal memory access"), KeyError("memory")])
def test_other_errors_stay_bugs(error):
    assert outcome(error) is None


def test_the_advice_names_keys_and_flags_that_there_are():
    make_config({"TRAIN.RECOMPUTE": True, "TRAIN.QUERY_CHUNK": 64, "AMP": True, "TRAIN.ACCUM_ITER": 2})
    for script, flag in ((MAIN, "-batch_size"), (ROOT / "CaiT" / "infer.py", "--batch-size")):
        assert flag in MEMORY_ADVICE and flag in run_python(script, "-h").stdout


def test_a_command_that_needs_too_much_ends_in_it(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'CaiT')\n"
        "from cait.command.run import run_command\n"
        "def main():\n    import paddle\n    paddle.empty([1 << 46])\n"
        "run_command(main)\n"
    )
    result = run_python("-c", code)
    assert result.returncode == 1 and result.stderr == f"error: there is not enough memory; {MEMORY_ADVICE}\n"
