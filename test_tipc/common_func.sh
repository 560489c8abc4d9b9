#!/usr/bin/env bash
# What the scripts of this folder share: where the project is, which Python runs it, how they are called.

TIPC_FOLDER="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

# usage WORDS: says how the script is called, and ends it.
usage() {
    echo "error: usage: bash $0 $1" >&2
    exit 2
}

# The interpreter that line 3 of a parameter file names. A file that is damaged there is named by the check that follows.
python_of() {
    local name
    name="$(sed -n '3s/^python://p' "$1" 2>/dev/null)"
    for name in "${name:-python}" python3; do
        if command -v "$name" >/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "error: no Python: line 3 of $1 names an interpreter that is not on the PATH" >&2
    exit 2
}

# tipc COMMAND FILE MODE ...: the step of tipc.py, in this shell's place.
tipc() {
    local python
    python="$(python_of "$2")" || exit 2
    if ! "$python" -c 'import numpy, yaml, yacs' 2>/dev/null; then
        echo "error: $python lacks the project's packages: make install, then source .venv/bin/activate" >&2
        exit 2
    fi
    exec "$python" "$TIPC_FOLDER/tipc.py" "$@"
}
