"""Start one process per GPU: what tools/dist_train.sh and tools/dist_test.sh call.

``python -m scsa_mm.runtime.launch GPUS SCRIPT ARGS...`` is ``torchrun`` with the variables that OpenMMLab's users know
(NNODES, NODE_RANK, MASTER_ADDR, PORT), a check of the GPUs before anything starts, and without torchrun's report of a
process that has already said what was wrong.
"""

import os
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from .devices import check_gpus
from .errors import UserError, one_line_errors


def torchrun_arguments(processes: int, script: list[str], env: dict[str, str]) -> list[str]:
    """Arguments of torchrun; on one machine without PORT it looks for a free port."""
    nodes = env.get('NNODES', '1')
    arguments = [f'--nproc-per-node={processes}', f'--nnodes={nodes}']
    if nodes == '1' and 'PORT' not in env:
        arguments.append('--standalone')
    else:
        arguments += [
            f'--node-rank={env.get("NODE_RANK", "0")}',
            f'--master-addr={env.get("MASTER_ADDR", "127.0.0.1")}',
            f'--master-port={env.get("PORT", "29500")}',
        ]
    return [*arguments, *script]


def main(argv: list[str]) -> None:
    with one_line_errors():
        if len(argv) < 2 or not argv[0].isdigit() or int(argv[0]) < 1:
            raise UserError(f'GPUS must be a positive number, got {argv[0] if argv else "nothing"!r}')
        check_gpus(int(argv[0]))
    try:
        run.main(torchrun_arguments(int(argv[0]), argv[1:], dict(os.environ)))
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        sys.exit(code if code > 0 else 1)
    except SignalException as error:
        sys.exit(128 + error.sigval)


if __name__ == '__main__':
    main(sys.argv[1:])
