#!/usr/bin/env python
"""Compare attention modules: what they cost, and what they bring in the same training.

python tools/analysis/compare_attention.py cost --attention SCSA EMA SE --out work_dirs/cost_of_one
python tools/analysis/compare_attention.py cost 'mmdet.ResNet(depth=50)' --attention SCSA EMA --out work_dirs/cost_r50
python tools/analysis/compare_attention.py cost CONFIG --part step --attention SE SCSA --peer FILE.py:CLASS --out OUT
python tools/analysis/compare_attention.py train CONFIG --attention none SCSA EMA --seeds 0 1 2 \\
    --metric coco/bbox_mAP --out work_dirs/compared

Stopped at any point and called again, `train` goes on from the last checkpoint of each run.
"""

import argparse
import json
import re
import signal
import warnings
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

import scsa_mm  # noqa: F401  (registers the attention)
from scsa_mm.analysis import cost, cost_table, training_table, trainings
from scsa_mm.analysis.candidates import BASELINE, Candidate, parse_candidates
from scsa_mm.analysis.figure import draw_costs, draw_metric
from scsa_mm.analysis.hosts import Host, check_no_plugins, in_model, model_of, one_module, parse_module
from scsa_mm.analysis.machine import choose_device, describe_machine
from scsa_mm.analysis.output import check_free, make_console, make_folder, progress_on, said, tell
from scsa_mm.analysis.peers import add_peer_arguments, load_peers
from scsa_mm.analysis.table import Row, markdown, rich_table, write_csv, write_text
from scsa_mm.runtime.config import CfgOptions, load_config
from scsa_mm.runtime.data import check_data, check_pretrained
from scsa_mm.runtime.errors import UserError, one_line_errors
from scsa_mm.runtime.processes import only_one

TOOLS = Path(__file__).resolve().parent.parent


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Compare attention modules: what they cost, and what they bring in the same training',
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest='command', required=True)

    costs = commands.add_parser('cost', help='parameters, FLOPs, memory and time', allow_abbrev=False)
    costs.add_argument(
        'host',
        nargs='?',
        help='a module such as mmdet.ResNet(depth=50), or a config; left out: each attention alone on a map',
    )
    add_common_arguments(costs)
    costs.add_argument(
        '--shape',
        nargs=4,
        type=int,
        default=(2, 256, 50, 84),
        metavar=('N', 'C', 'H', 'W'),
        help='the map, without a host (default: 2 256 50 84)',
    )
    costs.add_argument(
        '--image-size',
        nargs=2,
        type=int,
        default=(512, 512),
        metavar=('H', 'W'),
        help='of the input of a host (default: 512 512)',
    )
    costs.add_argument('--batch-size', type=int, default=2, metavar='N', help='of the input of a host (default: 2)')
    costs.add_argument(
        '--part',
        choices=['model', 'backbone', 'step'],
        default='model',
        help='what of a config is measured (default: as much of the model as runs without annotations); step: whole '
        'training steps and predictions of a detector or segmentor, on made-up annotations',
    )
    add_peer_arguments(costs)
    costs.add_argument('--repeats', type=int, default=20, metavar='N', help='rounds of timing (default: 20)')
    costs.add_argument('--device', choices=['cpu', 'cuda'], help='default: the GPU if there is one')

    trains = commands.add_parser('train', help='the same training for each', allow_abbrev=False)
    trains.add_argument('config', help='a file, or a name such as mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    add_common_arguments(trains)
    trains.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='default: 0 1 2')
    trains.add_argument('--metric', required=True, help='as the evaluation logs it, e.g. coco/bbox_mAP')
    return parser.parse_args()


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--attention',
        nargs='+',
        required=True,
        metavar='NAME',
        help='none, SCSA, EMA, ... or with options SCSA:num_heads=4,identity_init=True',
    )
    parser.add_argument('--stages', nargs='+', type=int, metavar='N', help='of the backbone, from 1 (default: all)')
    parser.add_argument('--position', help='after_conv1, 2 or 3 (default: before the last convolution of a block)')
    parser.add_argument('--before', metavar='PATTERN', help='instead: before the modules of these names')
    parser.add_argument('--after', metavar='PATTERN', help='instead: after the modules of these names')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='the folder for all results')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help='change the config')


def plugin_of(args: argparse.Namespace) -> dict:
    """Where the attention stands, as scsa_mm.add_plugins wants it."""
    places = {name: getattr(args, name) for name in ('stages', 'position', 'before', 'after')}
    return {name: value for name, value in places.items() if value is not None}


def host_of(args: argparse.Namespace) -> Host:
    if args.host is None:
        if plugin_of(args) or args.cfg_options or args.part == 'step':
            raise UserError('--stages, --position, --before, --after, --cfg-options and --part step need a HOST')
        return one_module(args.shape)
    if '(' in args.host:
        if args.part == 'step':
            raise UserError(f'--part step needs a config; {args.host} is a module')
        if args.cfg_options:
            raise UserError(f'--cfg-options change a config; write the arguments into {args.host}')
        cfg, scope = parse_module(args.host), 'mmengine'
    else:
        whole = load_config(args.host, args.cfg_options)
        cfg, scope = model_of(whole, args.host), whole.get('default_scope') or 'mmengine'
        check_no_plugins(cfg, args.host)
        if args.part == 'backbone':
            cfg = cfg.backbone
    return in_model(
        args.host, cfg, scope, plugin_of(args), args.batch_size, tuple(args.image_size), whole_step=args.part == 'step'
    )


def plain(cfg: dict | None) -> dict | None:
    """A config as JSON gives it back."""
    return json.loads(json.dumps(cfg, default=str))


def compare_costs(args: argparse.Namespace, console: Console) -> bool:
    """Returns whether any attention could be measured."""
    candidates = parse_candidates(args.attention)
    peers = [Candidate(peer.label, dict(type=peer.build)) for peer in load_peers(args.peer)]
    candidates = [Candidate(BASELINE, None), *(c for c in candidates if c.cfg is not None), *peers]
    if args.repeats < 1:
        raise UserError(f'--repeats is at least 1, got {args.repeats}')
    device = choose_device(args.device)
    check_free(args.out, ('cost.csv', 'cost.json', 'cost.md', 'cost.png'))
    host = host_of(args)
    make_folder(args.out)
    with progress_on(console) as progress:
        task = progress.add_task('', total=cost.steps(candidates, args.repeats))
        costs = cost.measure(
            host,
            candidates,
            device,
            args.repeats,
            lambda what: progress.update(task, advance=1, description=escape(what)),
        )
    machine = describe_machine(device)
    rows = cost_table.cost_rows(costs)
    title = f'Cost of attention: {host.name}'
    notes = [
        f'measured: {host.measured}; input {tuple(host.x.shape)}, {host.x.dtype}; {args.repeats} rounds.',
        *said(machine),
        *cost.notes(host),
    ]
    about = dict(host=host.name, input=tuple(host.x.shape), **machine)
    write_csv(args.out / 'cost.csv', [{**row, **about} for row in rows])
    write_text(args.out / 'cost.md', markdown(rows, cost_table.COLUMNS, title, notes))
    draw_costs(rows, args.out / 'cost.png', title, f'{machine["device"]}, {machine["threads"]} thread(s)')
    note = dict(about, notes=notes, model=plain(host.cfg), place=plugin_of(args), rows=rows)
    write_text(args.out / 'cost.json', json.dumps(note, indent=2) + '\n')
    console.print(rich_table(rows, cost_table.COLUMNS, title))
    tell(console, notes, f'{args.out}/cost.csv, .md, .png')
    return any(not c.problem for c in costs[1:]) or len(costs) == 1


def costs_beside(out: Path, model: dict, place: dict, console: Console) -> tuple[dict[str, Row], list[str]]:
    """The rows and notes that `cost` left in the same folder, if they are of the same model and place."""
    path = out / 'cost.json'
    if not path.is_file():
        return {}, []
    note = json.loads(path.read_text(encoding='utf-8'))
    if (note['model'], note['place']) != (plain(model), place):
        console.print(f'{path} is of another model or place, so its columns are left out', markup=False)
        return {}, []
    return {row['attention']: row for row in note['rows']}, [f'cost: {text}' for text in note['notes']]


def compare_trainings(args: argparse.Namespace, console: Console) -> bool:
    """Returns whether all runs are finished."""
    candidates = parse_candidates(args.attention)
    if len(set(args.seeds)) < len(args.seeds) or min(args.seeds) < 0:
        raise UserError(f'--seeds are different numbers from 0, got {" ".join(map(str, args.seeds))}')
    cfg = trainings.prepare(load_config(args.config, args.cfg_options), args.config)
    check_data(cfg, ('train', 'val'))
    check_pretrained(cfg)
    out, plugin = args.out.resolve(), plugin_of(args)
    runs = trainings.plan(out, candidates, args.seeds)
    trainings.check_claim(out, cfg, plugin, candidates, args.seeds)
    with only_one(out, 'comparison') as lock:
        trainings.claim(out, cfg, plugin, candidates, args.seeds)
        machine = describe_machine(choose_device(None))
        problems: dict[str, str] = {}
        with progress_on(console) as progress:
            task = progress.add_task('', total=len(runs))
            for run in runs:
                value = training_table.value_of(run, args.metric)
                if value is None:
                    on_line = partial(show_line, progress, task, run)
                    console.print(f'{run.name}: {"goes on" if resumes(run) else "starts"}', markup=False)
                    problem = trainings.complete(run, cfg, plugin, TOOLS, lock, machine, on_line)
                    if problem:
                        problems[run.name] = problem
                    value = training_table.value_of(run, args.metric)
                shown = f'failed: {problems[run.name]}' if value is None else f'{args.metric} {value:.4g}'
                console.print(f'{run.name}: {shown}', markup=False)
                progress.advance(task)
        costs, cost_notes = costs_beside(out, cfg.model, plugin, console)
        rows = training_table.training_rows(runs, args.metric, problems, costs)
        columns = training_table.columns(args.metric, args.seeds)
        title = f'Attention in {args.config}'
        machines = {json.dumps(r.machine()): r.machine() for r in runs if r.machine()} or {'': machine}
        notes = training_table.notes(args.metric, args.seeds)
        notes += [*(line for m in machines.values() for line in said(m)), *cost_notes]
        write_csv(out / 'training.csv', rows)
        write_text(out / 'training.md', markdown(rows, columns, title, notes))
        draw_metric(rows, args.seeds, out / 'training.png', title, args.metric)
    console.print(rich_table(rows, columns, title))
    tell(console, notes, f'{args.out}/training.csv, .md, .png')
    if problems:
        console.print(
            f'{len(problems)} of {len(runs)} runs failed; their output is in {args.out}/runs/*/*/output.txt, and the '
            'same command tries them again',
            markup=False,
        )
    return not problems


def resumes(run: trainings.Run) -> bool:
    return (run.folder / 'last_checkpoint').is_file()


def show_line(progress: Progress, task: int, run: trainings.Run, line: str) -> None:
    """What a person waits for, out of a line of the log: where the run is, and whether attention stays untrained."""
    if 'attention of scsa_mm:' in line and 'frozen' in line:
        progress.console.print(f'{run.name}: {line.partition("attention: ")[2]}', markup=False)
    at = re.search(r'(?:Epoch|Iter)\((?:train|val|test)\)\s*((?:\[[^]]*])+)', line)
    if at:
        progress.update(task, description=escape(f'{run.name} {at[1]}'))


def main() -> None:
    # Ended by a signal as by Ctrl-C: the training is ended too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    args = parse_args()
    console = make_console()
    warnings.filterwarnings('ignore', module='mmengine')
    with one_line_errors():
        try:
            finished = (compare_costs if args.command == 'cost' else compare_trainings)(args, console)
        except KeyboardInterrupt:
            more = '; the same command goes on from the last checkpoint' if args.command == 'train' else ''
            raise UserError(f'stopped{more}') from None
    raise SystemExit(0 if finished else 1)


if __name__ == '__main__':
    main()
