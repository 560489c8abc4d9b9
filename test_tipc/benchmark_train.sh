#!/usr/bin/env bash
# Measures training's images a second, for the batch sizes and precisions of lines 54 and 55, or for one combination.
#
#   bash test_tipc/prepare.sh test_tipc/configs/CaiT/train_infer_python.txt 'benchmark_train'
#   bash test_tipc/benchmark_train.sh test_tipc/configs/CaiT/train_infer_python.txt 'benchmark_train'
#   bash test_tipc/benchmark_train.sh test_tipc/configs/CaiT/train_infer_python.txt 'benchmark_train' 'dynamic_bs8_fp32_DP_N1C1'
set -euo pipefail
# shellcheck source=test_tipc/common_func.sh
source "$(dirname "${BASH_SOURCE[0]}")/common_func.sh"

case $# in
2 | 3) [ "$2" = benchmark_train ] || usage "PARAMETER_FILE benchmark_train [dynamic_bs8_fp32_DP_N1C1]" ;;
*) usage "PARAMETER_FILE benchmark_train [dynamic_bs8_fp32_DP_N1C1]" ;;
esac
tipc run "$@"
