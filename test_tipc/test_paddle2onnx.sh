#!/usr/bin/env bash
# Exports to ONNX, infers with ONNX Runtime, and compares with the model's own predictions.
#
#   bash test_tipc/prepare.sh test_tipc/configs/CaiT/paddle2onnx_infer_python.txt 'paddle2onnx_infer'
#   bash test_tipc/test_paddle2onnx.sh test_tipc/configs/CaiT/paddle2onnx_infer_python.txt 'paddle2onnx_infer'
set -euo pipefail
# shellcheck source=test_tipc/common_func.sh
source "$(dirname "${BASH_SOURCE[0]}")/common_func.sh"

[ $# -eq 2 ] || usage "PARAMETER_FILE paddle2onnx_infer"
tipc run "$1" "$2"
