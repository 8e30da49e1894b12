#!/usr/bin/env python
"""Compile the Triton kernels of SCSA and EMA for a GPU that need not be here, and list what each takes.

python tools/analysis/kernel_table.py --out work_dirs/kernels
python tools/analysis/kernel_table.py --shape 256 512 7 7 --dtype bfloat16 --channels-last --out work_dirs/last_stage
"""

import argparse
import warnings
from pathlib import Path

from rich.console import Console

import scsa_mm  # noqa: F401  (registers the attention)
from scsa_mm.analysis import contestants
from scsa_mm.analysis.output import check_free, make_console, make_folder, progress_on, tell
from scsa_mm.analysis.shapes import DTYPES, cases
from scsa_mm.analysis.table import markdown, rich_table, write_csv, write_text
from scsa_mm.runtime.errors import UserError, one_line, one_line_errors

WRITTEN = ('kernels.csv', 'kernels.md')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='List registers, memory and programs of every Triton kernel of SCSA and EMA', allow_abbrev=False
    )
    parser.add_argument(
        '--attention',
        nargs='+',
        default=['SCSA', 'EMA'],
        metavar='NAME',
        help='SCSA, EMA, or with options EMA:groups=8 (default: SCSA EMA)',
    )
    parser.add_argument(
        '--shape',
        nargs=4,
        type=int,
        action='append',
        default=[],
        metavar=('N', 'C', 'H', 'W'),
        help="a map; repeatable (default: ResNet-50's four stages for 800x1344 images, batch 2)",
    )
    parser.add_argument('--dtype', nargs='+', choices=list(DTYPES), default=['float32'], help='default: float32')
    parser.add_argument('--channels-last', action='store_true', help='the memory format of the maps')
    parser.add_argument(
        '--capability', type=int, default=90, metavar='N', help='compute capability: 80, 89, 90 (default: 90, Hopper)'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='the folder for the table')
    return parser.parse_args()


def run(args: argparse.Namespace, console: Console) -> None:
    try:
        import triton

        from scsa_mm.analysis import kernel_table, offline
    except ImportError as error:
        raise UserError(f'kernels are compiled by Triton: {one_line(error)}') from error
    operators = contestants.parse_operators(args.attention)
    todo = cases(['detection'], [2], args.shape, args.dtype, args.channels_last)
    for operator in operators:
        contestants.check(operator, [], [case.shape[1] for case in todo])
    check_free(args.out, WRITTEN)
    make_folder(args.out)
    title = f'Kernels for compute capability {args.capability / 10:.1f}'
    header = f'Compiled by Triton {triton.__version__} with nothing in its cache; nothing was run.'
    notes = list(kernel_table.NOTES)
    rows, texts = [], [f'# {title}\n', f'{header}\n']
    with progress_on(console) as progress, offline.fresh_cache():
        task = progress.add_task('', total=len(operators) * len(todo))
        variants: dict[str, int] = {}
        for operator in operators:
            of_operator = []
            for case in todo:
                name = f'{operator.label}, {case.shape_text}, {case.dtype}, {case.memory_format}'
                progress.update(task, description=name)
                about = dict(operator=operator.label, shape=case.shape_text, dtype=case.dtype)
                about['memory_format'] = case.memory_format
                launches = list(kernel_table.launches_on(operator, case))
                found = kernel_table.rows_of(launches, args.capability, about, variants)
                of_operator += found
                console.print(rich_table(found, kernel_table.COLUMNS, name))
                texts.append(markdown(found, kernel_table.COLUMNS, name, ()))
                progress.advance(task)
            seconds = sum(row['seconds'] or 0 for row in of_operator)
            count = len({row['variant'] for row in of_operator})
            notes.append(f'{operator.label}: {count} variants; compiled here {seconds:.1f} s on one core.')
            rows += of_operator
    about = dict(capability=args.capability, triton=triton.__version__)
    write_csv(args.out / 'kernels.csv', [{**row, **about} for row in rows])
    write_text(args.out / 'kernels.md', '\n'.join([*texts, '\n'.join(f'- {note}' for note in notes) + '\n']))
    tell(console, notes, f'{args.out}/kernels.csv, .md')


def main() -> None:
    args = parse_args()
    console = make_console()
    warnings.filterwarnings('ignore', module='mmengine')
    with one_line_errors():
        run(args, console)


if __name__ == '__main__':
    main()
