#!/usr/bin/env bash
# Train with one process per GPU (without a GPU: that many processes on the CPU).
#   tools/dist_train.sh CONFIG GPUS [options of train.py]
# Several machines: NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500, the same on each but for NODE_RANK.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
config=$1 gpus=$2
shift 2
tools=$(dirname "$0")
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m scsa_mm.runtime.launch "$gpus" "$tools/train.py" "$config" --launcher pytorch "$@"
