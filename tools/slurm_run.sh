#!/usr/bin/env bash
# What slurm_train.sh and slurm_test.sh share: run a tool on a SLURM cluster, one task per GPU.
#   tools/slurm_run.sh PARTITION JOB_NAME TOOL ARGS...
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS come from the environment.
set -euo pipefail
partition=$1 job=$2 tool=$3
shift 3
tools=$(dirname "$0")
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
per_node=$((gpus < per_node ? gpus : per_node))
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
# SRUN_ARGS holds several options on purpose.
# shellcheck disable=SC2086
exec srun --partition="$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" \
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$tools/$tool" "$@" --launcher slurm
