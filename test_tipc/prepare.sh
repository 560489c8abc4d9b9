#!/usr/bin/env bash
# Makes the images and the weights that a mode needs, in the folder that the parameter file names.
#
#   bash test_tipc/prepare.sh test_tipc/configs/CaiT/train_infer_python.txt 'lite_train_lite_infer'
set -euo pipefail
# shellcheck source=test_tipc/common_func.sh
source "$(dirname "${BASH_SOURCE[0]}")/common_func.sh"

[ $# -eq 2 ] || usage "PARAMETER_FILE MODE"
tipc prepare "$1" "$2"
