#!/usr/bin/env bash
# Train on a SLURM cluster; slurm_run.sh says which variables it reads.
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]" >&2
    exit 2
fi
partition=$1 job=$2 config=$3 work_dir=$4
shift 4
exec bash "$(dirname "$0")/slurm_run.sh" "$partition" "$job" train.py "$config" --work-dir "$work_dir" "$@"
