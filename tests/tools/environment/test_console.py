"""Running commands, showing progress, waiting for each other."""

import os
import sys
import threading
import time

import pytest
from environment import console
from environment.console import Session


def test_lines_come_whole_from_any_chunks():
    reader, writer = os.pipe()
    pieces = [b'one\ntw', b'o\r', b'three\xe2', b'\x82\xac\n\nlast']

    def write():
        for piece in pieces:
            os.write(writer, piece)
            time.sleep(0.02)
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    assert list(console.read_lines(reader, lambda: None)) == ['one', 'two', 'three€', 'last']
    thread.join()
    os.close(reader)


def test_the_log_has_all_but_the_noise(session):
    noise = ["WARNING: Location 'file:///x/y' is ignored: it is either a non-existing path", 'Progress 5 of 10']
    text = '; '.join(f'print({line!r})' for line in [*noise, 'WARNING: disk is slow', 'Progress report'])
    code, lines = session.run([sys.executable, '-c', f'{text}; raise SystemExit(3)'])
    assert (code, lines) == (3, ['WARNING: disk is slow', 'Progress report'])
    log = session.log_path.read_text()
    assert 'disk is slow' in log
    assert not any(f'\n{line}' in log for line in noise)


def test_progress_without_a_terminal_is_a_line_now_and_then(session, capsys):
    for done in range(1, 78):
        console.watch_ninja(f'[{done}/77] c++ -c file.cpp', session)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split('  ')[-1] for line in lines[:2]] == ['compiled 10 of 77 files', 'compiled 20 of 77 files']
    assert len(lines) == 8
    assert lines[-1].endswith('compiled 77 of 77 files')
    console.watch_pip('  Downloading torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl (530.6 MB)', session)
    console.watch_pip('Downloading six-1.17.0-py2.py3-none-any.whl (11 kB)', session)
    console.watch_pip('Installing collected packages: a, b, c', session)
    lines = [line.split('  ')[-1] for line in capsys.readouterr().out.splitlines()]
    assert lines == ['downloading torch: 530.6 MB', 'installing packages: 3']


@pytest.mark.parametrize(
    'lines, reason',
    [
        (['ERROR: No matching distribution found for x==1', 'bye'], 'it finds no x==1; is the network there'),
        (
            ['    The user requested (constraint) pip==26.3', 'ERROR: ResolutionImpossible: see'],
            'it finds no pip==26.3; ',
        ),
        (['Collecting x', 'ERROR: x is not a supported wheel', 'bye'], 'ERROR: x is not a supported wheel'),
        (['a.cpp:1:2: error: no Foo', 'ninja: build stopped', "error: command 'c++' failed"], 'a.cpp:1:2: error: no F'),
        (['x.h:1:10: fatal error: y.h: No such file', 'error: failed'], 'x.h:1:10: fatal error: y.h'),
        (["nvcc fatal   : Unsupported gpu architecture 'compute_1'", 'error: failed'], 'nvcc fatal   : Unsupported'),
        (['WARNING: Retrying after NewConnectionError(...)', 'ERROR: No matching distribution'], 'no network'),
        (['ERROR: [Errno 28] No space left on device', 'ERROR: x'], 'the disk is full'),
        (['c++: fatal error: Killed signal terminated program cc1plus'], 'the compiler was killed, probably'),
        (['something odd'], 'something odd'),
        ([], 'no output'),
    ],
)
def test_the_reason_is_found_in_the_output(lines, reason):
    assert console.failure(lines).startswith(reason)


def test_a_second_set_up_waits_for_the_first(tmp_path, capsys):
    first, second = Session(tmp_path / '1.log'), Session(tmp_path / '2.log')
    order = []

    def wait():
        with second.locked(tmp_path / 'lock', 'the wheel'):
            order.append('second')

    thread = threading.Thread(target=wait)
    with first.locked(tmp_path / 'lock', 'the wheel'):
        thread.start()
        time.sleep(0.3)
        order.append('first')
    thread.join(10)
    assert order == ['first', 'second']
    assert 'waiting for another set-up, which is at work on the wheel' in capsys.readouterr().out


def test_a_command_holds_the_locks_of_its_set_up(session, tmp_path):
    with session.locked(tmp_path / 'lock', 'it'):
        assert session.run([sys.executable, '-c', f'import os; os.fstat({session.locks[0]})'])[0] == 0
        held = session.locks[0]
    assert session.run([sys.executable, '-c', f'import os; os.fstat({held})'])[0] != 0
