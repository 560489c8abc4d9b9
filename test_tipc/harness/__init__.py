"""What the scripts of `test_tipc` do: read the parameter file, compose commands, run them, check what they left."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIPC = "test_tipc/tipc.py"  # the script whose checks are steps

# The project's package lies beside its scripts; the harness uses it from here, the commands it runs do not need this.
if str(ROOT / "CaiT") not in sys.path:
    sys.path.insert(0, str(ROOT / "CaiT"))
