#!/usr/bin/env bash
# Evaluate with one process per GPU (without a GPU: that many processes on the CPU).
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]
# Several machines: NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500, the same on each but for NODE_RANK.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [options of test.py]" >&2
    exit 2
fi
config=$1 checkpoint=$2 gpus=$3
shift 3
tools=$(dirname "$0")
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m scsa_mm.runtime.launch "$gpus" "$tools/test.py" "$config" "$checkpoint" \
    --launcher pytorch "$@"
