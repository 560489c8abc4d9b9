"""The steps behind the shell scripts of this folder; each can be run by hand.

    python test_tipc/tipc.py check FILE MODE                    # the parameter file alone
    python test_tipc/tipc.py prepare FILE MODE                  # prepare.sh
    python test_tipc/tipc.py run FILE MODE                      # test_train_inference_python.sh
    python test_tipc/tipc.py compare --table=predictions.csv --log=infer.log --precision=fp32

Exit code 0: passed; 1: a command failed; 2: wrong usage; 77: skipped.
"""

import harness  # noqa: F401  (first: it makes the project's package known)
from cait.command.run import run_command


def main() -> None:
    from harness.cli import run

    run(__doc__)


if __name__ == "__main__":
    run_command(main)
