#!/usr/bin/env python
"""Time our SCSA and EMA against torch.compile, other attention, a plain copy and outside implementations.

python tools/analysis/benchmark_attention.py --preset detection segmentation --batch 2 16 --out work_dirs/benchmark
python tools/analysis/benchmark_attention.py --shape 2 256 50 84 --dtype float32 bfloat16 --channels-last \\
    --peer path/to/scsa.py:SCSA --peer-kwargs head_num=1 --out work_dirs/against_a_peer
python tools/analysis/benchmark_attention.py --bars --peer path/to/scsa.py:SCSA --peer-kwargs head_num=1 \\
    --peer path/to/ema.py:EMA --out work_dirs/bars
python tools/analysis/benchmark_attention.py --host --threads 1 --out work_dirs/host

Whoever must compute the same is compared with the reference first, and not timed if it computes something else.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape

import scsa_mm  # noqa: F401  (registers the attention)
from scsa_mm.analysis import bars, benchmark, benchmark_table, contestants, cost, host_cost
from scsa_mm.analysis.candidates import BASELINE, Candidate
from scsa_mm.analysis.contestants import Contestant, Operator
from scsa_mm.analysis.hosts import in_model
from scsa_mm.analysis.machine import choose_device, describe_machine
from scsa_mm.analysis.output import check_free, make_console, make_folder, progress_on, said, tell
from scsa_mm.analysis.peers import Peer, add_peer_arguments, load_peers
from scsa_mm.analysis.roofline import draw_roofline
from scsa_mm.analysis.shapes import DTYPES, IMAGES, Case, cases
from scsa_mm.analysis.table import Row, markdown, rich_table, write_csv, write_text
from scsa_mm.runtime.config import load_config
from scsa_mm.runtime.errors import UserError, one_line, one_line_errors

WRITTEN = ('benchmark.csv', 'benchmark.md', 'benchmark_*.png', 'bars.csv', 'bars.md', 'host.csv', 'host.md')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Time our SCSA and EMA against other implementations, other attention and a plain copy',
        allow_abbrev=False,
    )
    parser.add_argument(
        '--attention',
        nargs='+',
        default=['SCSA', 'EMA'],
        metavar='NAME',
        help='SCSA, EMA, or with options EMA:groups=8 (default: SCSA EMA)',
    )
    parser.add_argument(
        '--preset',
        nargs='+',
        choices=list(IMAGES),
        default=['detection'],
        help="the maps of ResNet-50's four stages for 800x1344, 512x512 or 224x224 images (default: detection)",
    )
    parser.add_argument('--batch', nargs='+', type=int, default=[2], metavar='N', help='of the presets (default: 2)')
    parser.add_argument(
        '--shape',
        nargs=4,
        type=int,
        action='append',
        default=[],
        metavar=('N', 'C', 'H', 'W'),
        help='a map in place of the presets; repeatable',
    )
    parser.add_argument(
        '--dtype',
        nargs='+',
        choices=list(DTYPES),
        default=['float32'],
        help='of maps and parameters (default: float32)',
    )
    parser.add_argument('--channels-last', action='store_true', help='the memory format of the maps')
    add_peer_arguments(parser)
    parser.add_argument('--compile-peers', action='store_true', help='time torch.compile of each --peer too')
    parser.add_argument('--no-compile', action='store_true', help='leave out torch.compile of ours')
    parser.add_argument(
        '--bars',
        action='store_true',
        help='measure what the bars of speed and memory need on this device, and nothing else, and show which hold',
    )
    parser.add_argument(
        '--host',
        action='store_true',
        help='measure what a step costs the host, kernels aside, and nothing else; also without a GPU',
    )
    parser.add_argument('--repeats', type=int, default=20, metavar='N', help='rounds of timing (default: 20)')
    parser.add_argument('--device', choices=['cpu', 'cuda'], help='default: the GPU if there is one')
    parser.add_argument(
        '--threads', type=int, metavar='N', help=f'of the CPU (default: as torch has it; --bars: {bars.CPU_THREADS})'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='the folder for all results')
    args = parser.parse_args()
    fixed = 'attention', 'preset', 'batch', 'shape', 'dtype', 'channels_last', 'compile_peers', 'no_compile'
    args.settled = [f'--{name.replace("_", "-")}' for name in fixed if getattr(args, name) != parser.get_default(name)]
    return args


@dataclass
class Race:
    """One operator on one map against its contestants."""

    operator: Operator
    case: Case
    contestants: list[Contestant]
    jobs: Sequence[str]


@dataclass
class Session:
    """What all races share."""

    device: torch.device
    rounds: int
    about: Row
    out: Path
    console: Console
    rows: list[Row] = field(default_factory=list)

    def run(self, races: Sequence[Race]) -> None:
        """Measure, show a table for each map, and keep the numbers on disk from the first map on."""
        total = sum(benchmark.steps(r.contestants, self.rounds, self.device, r.jobs) for r in races)
        with progress_on(self.console) as progress:
            task = progress.add_task('', total=total)
            for race in races:
                name = escape(f'{race.operator.label} {race.case.shape_text} {race.case.dtype}: ')

                def on_step(what: str, name: str = name) -> None:
                    progress.update(task, advance=1, description=name + escape(what))

                measured = benchmark.measure(
                    race.operator, race.case, race.contestants, self.device, self.rounds, on_step, race.jobs
                )
                rows = benchmark_table.long_rows(race.operator, race.case, measured, race.jobs)
                self.rows += rows
                write_csv(self.out / 'benchmark.csv', [{**row, **self.about} for row in self.rows])
                self.console.print(self.table(rows))
                if self.device.type == 'cuda':
                    torch.cuda.empty_cache()

    def table(self, rows: Sequence[Row]) -> object:
        return rich_table(benchmark_table.wide_rows(rows), benchmark_table.COLUMNS, title_of(rows[0]))


def title_of(row: Row) -> str:
    return f'{row["operator"]}, {row["group"]}, {row["shape"]}, {row["dtype"]}, {row["memory_format"]}'


def title_of_group(row: Row) -> str:
    return f'{row["operator"]}, {row["group"]}, {row["dtype"]}, {row["memory_format"]}: geometric means'


def split(rows: Sequence[Row], *keys: str) -> list[list[Row]]:
    """The rows with equal values of ``keys`` together, in order."""
    parts: dict[tuple, list[Row]] = {}
    for row in rows:
        parts.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(parts.values())


def contestants_of(
    operator: Operator, peers: Sequence[Peer], case: Case, device: torch.device, args: argparse.Namespace, notes: dict
) -> list[Contestant]:
    x = benchmark.like_inputs(case, device)
    found = contestants.ours(operator, x, notes)
    cannot = contestants.cannot_compile(device)
    if cannot:
        notes['torch.compile'] = cannot
    elif not args.no_compile:
        found += contestants.of_compiler(operator, found)
    for peer in peers:
        found.append(contestants.of_peer(peer))
        if args.compile_peers and not cannot:
            found.append(contestants.compiled_peer(peer))
    return [*found, *contestants.of_timm(notes), contestants.copy()]


def peers_of(operator: Operator, peers: Sequence[Peer]) -> list[Peer]:
    return [peer for peer in peers if peer.operator == operator.name]


def races_of(
    args: argparse.Namespace, operators: Sequence[Operator], peers: Sequence[Peer], device: torch.device, notes: dict
) -> list[Race]:
    """All maps for all operators."""
    todo = cases(args.preset, args.batch, args.shape, args.dtype, args.channels_last)
    for operator in operators:
        contestants.check(operator, peers_of(operator, peers), [case.shape[1] for case in todo])
    return [
        Race(operator, case, contestants_of(operator, own, case, device, args, notes), benchmark.JOBS)
        for operator in operators
        for own in [peers_of(operator, peers)]
        for case in todo
    ]


def races_for_bars(peers: Sequence[Peer], device: torch.device, notes: dict) -> list[Race]:
    """Only what the bars of this device need."""
    races = []
    for plan in bars.PLANS[device.type]:
        operator = contestants.parse_operators([plan.operator])[0]
        own = peers_of(operator, peers)
        contestants.check(operator, own, [case.shape[1] for case in plan.cases])
        for case in plan.cases:
            x = benchmark.like_inputs(case, device)
            all_of_them = [c for c in contestants.ours(operator, x, {}) if c.chosen]
            all_of_them += [make(p) for p in own for make in (contestants.of_peer, contestants.compiled_peer)]
            all_of_them += [c for c in contestants.of_timm(notes) if c.name == contestants.SE] + [contestants.copy()]
            races.append(Race(operator, case, [c for c in all_of_them if c.kind in plan.kinds], plan.jobs))
    return races


def write_results(session: Session, title: str, header: Sequence[str], notes: Sequence[str]) -> None:
    """The summary on the terminal, all tables as Markdown, and the pictures."""
    texts = [f'# {title}\n', *(f'{line}\n' for line in header)]
    keys = ('operator', 'group', 'dtype', 'memory_format')
    for rows in split(session.rows, *keys):
        summary = benchmark_table.summary_rows(rows)
        if len({row['shape'] for row in rows}) > 1:
            session.console.print(rich_table(summary, benchmark_table.SUMMARY_COLUMNS, title_of_group(rows[0])))
            texts.append(markdown(summary, benchmark_table.SUMMARY_COLUMNS, title_of_group(rows[0]), ()))
        for of_map in split(rows, 'shape'):
            wide = benchmark_table.wide_rows(of_map)
            texts.append(markdown(wide, benchmark_table.COLUMNS, title_of(of_map[0]), ()))
    texts.append('\n'.join(f'- {note}' for note in notes) + '\n')
    write_text(session.out / 'benchmark.md', '\n'.join(texts))
    about = session.about
    for rows in split(session.rows, 'operator', 'dtype'):
        if any(row['median_ms'] for row in rows):
            name = f'benchmark_{Candidate(rows[0]["operator"], None).folder}_{rows[0]["dtype"]}.png'
            picture = f'{rows[0]["operator"]}, {rows[0]["dtype"]}, {rows[0]["memory_format"]}'
            caption = f'{about["device"]}, {about["threads"]} thread(s), torch {torch.__version__}, {about["date"]}'
            draw_roofline(rows, session.out / name, picture, caption)


def detector_step(device: torch.device, rounds: int, console: Console) -> bars.Model:
    """The training step of the detector with our SCSA, in step times without; on a GPU only."""
    if device.type != 'cuda':
        return bars.Model(why_not='needs a GPU')
    try:
        cfg = load_config(bars.MODEL)
        place = dict(position='after_conv2')
        host = in_model(bars.MODEL, cfg.model, 'mmdet', place, bars.SMALL, bars.MODEL_IMAGE, whole_step=True)
        candidates = [Candidate(BASELINE, None), Candidate('SCSA', dict(type='scsa_mm.SCSA'))]
        with progress_on(console) as progress:
            task = progress.add_task('', total=cost.steps(candidates, rounds))
            none, scsa = cost.measure(
                host, candidates, device, rounds, lambda what: progress.update(task, advance=1, description=what)
            )
    except Exception as error:  # mmdet is not needed for anything else here
        return bars.Model(why_not=one_line(error))
    if scsa.problem:
        return bars.Model(why_not=scsa.problem)
    return bars.Model(scsa.training.median / none.training.median)


def show_bars(session: Session, model: bars.Model, title: str, header: Sequence[str]) -> None:
    rows = bars.bar_rows(session.rows, session.device.type, model)
    write_csv(session.out / 'bars.csv', [{**row, **session.about} for row in rows])
    write_text(session.out / 'bars.md', markdown(rows, bars.COLUMNS, title, (bars.NOTE, *header)))
    session.console.print(rich_table(rows, bars.COLUMNS, title))


def run_host(args: argparse.Namespace, device: torch.device, console: Console) -> bool:
    if args.threads:
        torch.set_num_threads(args.threads)
    make_folder(args.out)
    machine = describe_machine(device)
    about = dict(**machine, date=time.strftime('%Y-%m-%d'), rounds=args.repeats)
    with progress_on(console) as progress:
        task = progress.add_task('host', total=host_cost.WARM_UP + args.repeats)
        rows = host_cost.measure(device, args.repeats, lambda: progress.update(task, advance=1))
    write_csv(args.out / 'host.csv', [{**row, **about} for row in rows])
    header = [*said(machine), f'{about["date"]}; {args.repeats} rounds.']
    notes = host_cost.notes(device)
    write_text(args.out / 'host.md', markdown(rows, host_cost.COLUMNS, host_cost.TITLE, [*notes, *header]))
    console.print(rich_table(rows, host_cost.COLUMNS, host_cost.TITLE))
    tell(console, [*header, *notes], f'{args.out}/host.csv, .md')
    return True


def run(args: argparse.Namespace, console: Console) -> bool:
    """Returns whether all of ours ran and were right."""
    if args.repeats < 1:
        raise UserError(f'--repeats is at least 1, got {args.repeats}')
    if args.threads is not None and args.threads < 1:
        raise UserError(f'--threads is at least 1, got {args.threads}')
    only = [name for name in ('bars', 'host') if getattr(args, name)]
    if only and args.settled or len(only) > 1:
        others = [*(f'--{name}' for name in only[1:]), *args.settled]
        raise UserError(f'--{only[0]} settles what is measured; leave out {", ".join(others)}')
    device = choose_device(args.device)
    check_free(args.out, WRITTEN)
    if args.host:
        return run_host(args, device, console)
    operators = contestants.parse_operators(args.attention)
    peers = load_peers(args.peer)
    known = {operator.name for operator in operators} if not args.bars else {p.operator for p in bars.PLANS['cpu']}
    for peer in peers:
        if peer.operator not in known:
            raise UserError(
                f'--peer {peer.label}: it is compared with nothing named {peer.operator}; write --peer '
                f'{sorted(known)[0]}=FILE.py:CLASS'
            )
    threads = args.threads or (bars.CPU_THREADS if args.bars and device.type == 'cpu' else None)
    if threads:
        torch.set_num_threads(threads)
    skipped: dict[str, str] = {}
    make = races_for_bars if args.bars else partial(races_of, args, operators)
    races = make(peers, device, skipped)
    make_folder(args.out)
    machine = describe_machine(device)
    about = dict(**machine, date=time.strftime('%Y-%m-%d'), rounds=args.repeats)
    header = [*said(machine), f'{about["date"]}; {args.repeats} rounds.']
    for line in header:
        console.print(line, markup=False, highlight=False)
    session = Session(device, args.repeats, about, args.out, console)
    session.run(races)
    notes = [*benchmark_table.NOTES, *([benchmark_table.GPU_NOTE] if device.type == 'cuda' else [])]
    notes += [f'{name} is left out: {reason}.' for name, reason in skipped.items()]
    unlike = [
        r['contestant'] for r in session.rows if 'peer' in r['kind'] and not r['problem'] and r['difference'] is None
    ]
    notes += [
        f'{name} was not checked: its parameters are not ours in name and shape.' for name in dict.fromkeys(unlike)
    ]
    write_results(session, 'Attention against its alternatives', header, notes)
    written = f'{args.out}/benchmark.csv, .md, .png'
    right = not any(row['problem'] for row in session.rows if row['kind'] == 'ours')
    if args.bars:
        show_bars(session, detector_step(device, args.repeats, console), 'Bars of speed and memory', header)
        notes.append(bars.NOTE)
        written += f'; {args.out}/bars.csv, .md'
    tell(console, notes, written)
    return right


def main() -> None:
    args = parse_args()
    console = make_console()
    warnings.filterwarnings('ignore', module='mmengine')
    with one_line_errors():
        try:
            right = run(args, console)
        except KeyboardInterrupt:
            raise UserError(f'stopped; what was measured is in {args.out}') from None
    raise SystemExit(0 if right else 1)


if __name__ == '__main__':
    main()
