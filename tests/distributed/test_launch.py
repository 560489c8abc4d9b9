"""Starting processes, without Paddle."""

import os
import signal

import pytest

from cait.distributed.launch import must_start, share_cores, start
from cait.errors import UsageError


@pytest.fixture
def environment(monkeypatch):
    for name in (
        "PADDLE_TRAINER_ID",
        "PADDLE_TRAINERS_NUM",
        "PADDLE_LOCAL_SIZE",
        "OMP_NUM_THREADS",
        "GLOG_minloglevel",
    ):
        monkeypatch.delenv(name, raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_processes_are_started_once(environment):
    assert must_start(2) and not must_start(1)
    environment(PADDLE_TRAINER_ID="0", PADDLE_TRAINERS_NUM="4", PADDLE_LOCAL_SIZE="2")
    assert not must_start(2) and not must_start(1)
    with pytest.raises(UsageError, match="the launcher started 2 on this machine: leave out -ngpus"):
        must_start(4)


def test_cores_are_shared(environment):
    share_cores()
    assert "OMP_NUM_THREADS" not in os.environ
    environment(PADDLE_TRAINERS_NUM="1000", PADDLE_LOCAL_SIZE="1000")
    share_cores()
    assert os.environ["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("codes, exit_code", [((0, 0), 0), ((0, 2), 2), ((3, 2), 3)])
def test_the_exit_code_is_that_of_the_one_that_failed(environment, tmp_path, codes, exit_code):
    script = tmp_path / "script.py"
    script.write_text(f"import os, sys; sys.exit({codes}[int(os.environ['PADDLE_TRAINER_ID'])])")
    assert start([str(script)], 2) == exit_code


def test_a_process_that_hangs_is_ended(environment, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("cait.distributed.launch.GRACE_SECONDS", 0.2)
    script = tmp_path / "script.py"
    script.write_text("import os, time; os.environ['PADDLE_TRAINER_ID'] == '1' and os._exit(5); time.sleep(60)")
    assert start([str(script)], 2) == 5
    assert "error: process 1 ended with exit code 5" in capsys.readouterr().err
