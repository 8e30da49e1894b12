"""Compiling on the user's machine."""

import shutil

import pytest

from scsa_mm.ops.native import compilation

pytestmark = pytest.mark.skipif(shutil.which('g++') is None, reason='needs g++')


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Sources of one function, and an empty cache."""
    sources = tmp_path / 'sources'
    sources.mkdir()
    (sources / 'one.cpp').write_text('#include "two.h"\nextern "C" int two() { return TWO; }\n')
    (sources / 'two.h').write_text('#define TWO 2\n')
    monkeypatch.setattr(compilation, 'FOLDER', sources)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(compilation, '_load_once', compilation.functools.cache(compilation._load_once.__wrapped__))
    return sources


def test_compiled_once_for_a_source_a_compiler_and_a_processor(folder, tmp_path, monkeypatch):
    assert compilation._load_once().two() == 2
    first = compilation._compiled(['g++'], link=[])
    assert sorted((tmp_path / 'cache' / 'scsa_mm').iterdir()) == [first]  # no temporary files are left
    when = first.stat().st_mtime_ns
    assert compilation._compiled(['g++'], link=[]) == first and first.stat().st_mtime_ns == when
    monkeypatch.setattr(compilation, '_processor', lambda: 'another')
    assert compilation._compiled(['g++'], link=[]) != first


def test_a_changed_header_is_compiled(folder):
    before = compilation._compiled(['g++'], link=[])
    (folder / 'two.h').write_text('#define TWO 3\n')
    assert compilation._compiled(['g++'], link=[]) != before
    assert compilation._load_once().two() == 3


def test_what_the_compiler_says_in_one_line(folder):
    (folder / 'one.cpp').write_text('int f() {\n  return x;\n}\n')
    message = compilation._load_once()
    assert 'g++ failed: ' in message and "'x' was not declared" in message.replace('‘', "'").replace('’', "'")
    assert '\n' not in message


def test_a_compiler_that_is_not_there(folder, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    assert 'no-such-compiler failed: ' in compilation._load_once()


def test_a_cache_that_cannot_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / 'cache').write_text('a file')
    assert compilation._load_once().two() == 2
