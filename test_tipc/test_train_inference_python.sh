#!/usr/bin/env bash
# Runs training, evaluation, export and inference as the parameter file says, compares their results, and ends in a
# table. Exit code 0: passed; 1: a command failed; 2: wrong usage; 77: what the mode is to show was skipped.
#
#   bash test_tipc/test_train_inference_python.sh test_tipc/configs/CaiT/train_infer_python.txt 'lite_train_lite_infer'
set -euo pipefail
# shellcheck source=test_tipc/common_func.sh
source "$(dirname "${BASH_SOURCE[0]}")/common_func.sh"

[ $# -eq 2 ] || usage "PARAMETER_FILE MODE"
tipc run "$1" "$2"
