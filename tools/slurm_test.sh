#!/usr/bin/env bash
# Evaluate on a SLURM cluster; slurm_run.sh says which variables it reads.
#   tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]" >&2
    exit 2
fi
partition=$1 job=$2
shift 2
exec bash "$(dirname "$0")/slurm_run.sh" "$partition" "$job" test.py "$@"
