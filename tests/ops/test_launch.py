"""Launches by hand: the same as Triton's own would be, without a GPU, through a driver that only listens."""

import itertools

import pytest
import torch

triton = pytest.importorskip('triton')

import triton.language as tl  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from scsa_mm.analysis.host_cost import without_kernels  # noqa: E402
from scsa_mm.attention import EMA, SCSA  # noqa: E402
from scsa_mm.ops import launch  # noqa: E402
from scsa_mm.ops.launch import Launch, Launches, compile_together, variants  # noqa: E402

devices = itertools.count(-2, -1)
DEVICE = -1  # of tensors in memory; torch.cuda.device(-1) changes nothing


@triton.jit(do_not_specialize=['n', 'start'])
def add(a, b, out, n, start, BLOCK: tl.constexpr, TWICE: tl.constexpr):
    at = start + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(a + at, at < n, 0.0) + tl.load(b + at, at < n, 0.0)
    tl.store(out + at, total * 2 if TWICE else total, at < n)


class Driver:
    """In place of that of CUDA."""

    def __init__(self):
        self.launched, self.loaded = [], 0
        self.utils = self

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 'stream'

    def get_current_target(self):
        return GPUTarget('cuda', 90, 32)

    def get_device_properties(self, device):
        return {'max_shared_mem': 232448}

    def load_binary(self, name, kernel, shared, device):
        self.loaded += 1
        return 'module', f'{name} {self.loaded}', 32, 0, 1024

    def launcher_cls(self, src, metadata):
        kept = [i for i, kind in enumerate(src.signature.values()) if kind != 'constexpr']

        def run(*args):
            *base, enter, leave = args[:9]
            for hook in (enter, leave):
                if hook:
                    hook(base[-1])
            values = [args[9 + i] for i in kept]
            addresses = [v.data_ptr() if isinstance(v, torch.Tensor) else v for v in values]
            assert len(args) == 9 + len(src.signature)
            self.launched.append((*base[:6], *addresses))

        return run


@pytest.fixture
def listening(monkeypatch, tmp_path):
    """A driver that lists launches, and how many of them were Triton's own."""
    found = Driver()
    found.ordinary = 0
    monkeypatch.setattr(driver, '_active', found)
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    monkeypatch.setattr(add, 'device_caches', type(add.device_caches)(add.create_binder))
    monkeypatch.setattr(launch, '_compiled', {})
    monkeypatch.setattr(launch, '_current_device', lambda: DEVICE)
    monkeypatch.setattr(launch, '_current_stream', lambda device: 'stream')
    launch._direct.cache_clear()
    own = JITFunction.run

    def run(self, *args, warmup, **kwargs):
        found.ordinary += not warmup
        return own(self, *args, warmup=warmup, **kwargs)

    monkeypatch.setattr(JITFunction, 'run', run)
    yield found
    launch._direct.cache_clear()


def make(n=100, start=0, grid=(4,), dtypes=(torch.float32,) * 3, **constants):
    return Launch(add, grid, dtypes, (n, start), **{'BLOCK': 32, 'TWICE': False, 'num_warps': 1, **constants})


def tensors(dtype=torch.float32):
    return [torch.zeros(128, dtype=dtype) for _ in range(3)]


def test_the_second_time_goes_past_triton_and_is_the_same(listening):
    one, given = make(), tensors()
    one(*given)
    one(*given)
    assert listening.ordinary == 1
    first, second = listening.launched
    assert first == second
    assert first[:3] == (4, 1, 1) and first[6:] == (*[t.data_ptr() for t in given], 100, 0)


def test_other_tensors_are_other_addresses(listening):
    one = make(grid=(2, 3))
    one(*tensors())
    given = tensors()
    one(*given)
    assert listening.ordinary == 1
    assert listening.launched[1][:3] == (2, 3, 1)
    assert listening.launched[1][6:9] == tuple(t.data_ptr() for t in given)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_an_offset_counts_elements(listening, dtype):
    one, (a, b, out) = make(dtypes=(dtype,) * 3), tensors(dtype)
    for _ in range(2):  # Triton's way and ours
        one((a, 16), b, (out, 64))
    size = dtype.itemsize
    for found in listening.launched:
        assert found[6:9] == (a.data_ptr() + 16 * size, b.data_ptr(), out.data_ptr() + 64 * size)
    assert listening.ordinary == 1


def test_an_address_that_is_not_aligned_is_left_to_triton(listening):
    """Its kernel is another one; and of the aligned one it must not take the place."""
    one, (a, b, out) = make(), tensors()
    for _ in range(2):
        one((a, 1), b, out)
    assert listening.ordinary == 2 and not launch._compiled
    one(a, b, out)
    one(a, b, out)
    one((a, 1), b, out)
    one(a[3:], b, out)
    assert listening.ordinary == 5
    functions = [found[4] for found in listening.launched]
    assert functions[0] == functions[1] == functions[4] == functions[5] != functions[2] == functions[3]


def test_another_shape_of_a_known_variant_goes_past_triton_at_once(listening):
    make()(*tensors())
    given = tensors()
    make(n=77, start=1, grid=(9,))(*given)
    assert listening.ordinary == 1 and listening.loaded == 1
    assert listening.launched[1][:3] == (9, 1, 1)
    assert listening.launched[1][6:] == (*[t.data_ptr() for t in given], 77, 1)


@pytest.mark.parametrize(
    'other',
    [
        dict(n=2**31),
        dict(BLOCK=64),
        dict(TWICE=True),
        dict(num_warps=2),
        dict(dtypes=(torch.float16, torch.float32, torch.float32)),
    ],
    ids=['wide', 'block', 'constant', 'warps', 'dtype'],
)
def test_another_variant_is_compiled(listening, other):
    make()(*tensors())
    given = tensors()
    given[0] = given[0].to(other.get('dtypes', (torch.float32,))[0])
    make(**other)(*given)
    assert listening.ordinary == 2 and listening.loaded == 2
    assert listening.launched[0][4] != listening.launched[1][4]
    assert len(variants([make(), make(**other)])) == 2


@pytest.mark.parametrize('n', [1, 16, 17, 2**31 - 1])
def test_the_size_of_a_number_makes_no_variant(listening, n):
    make()(*tensors())
    make(n=n)(*tensors())
    assert listening.loaded == 1
    add.run(*tensors(), n, 0, grid=(1,), warmup=False, BLOCK=32, TWICE=False, num_warps=1)
    assert listening.loaded == 1, 'Triton would have compiled anew'
    assert variants([make(), make(n=n, grid=(7,))]) == variants([make()])


def test_a_profiler_sees_every_launch(listening, monkeypatch):
    from triton import knobs

    one, seen = make(), []
    one(*tensors())
    one(*tensors())
    hook = knobs.runtime.launch_enter_hook
    hook.add(seen.append)
    try:
        one(*tensors())
    finally:
        hook.remove(seen.append)
    one(*tensors())
    assert listening.ordinary == 2 and len(listening.launched) == 4
    assert [metadata.get()['name'] for metadata in seen] == ['add']


class TestLaunches:
    """The same as the single launches."""

    def make(self):
        return Launches((make(), (0, 1, (2, 16))), (make(n=50, grid=(2, 3)), ((2, 16), 0, (3, 32))))

    def by_hand(self, a, b, c, d):
        make()._ordinary((a, b, (c, 16)))
        make(n=50, grid=(2, 3))._ordinary(((c, 16), a, (d, 32)))

    def test_the_same_as_single_ones(self, listening):
        both = self.make()
        for count in (1, 1, 1):  # both are of one variant, so that the second launch knows the first
            given = [*tensors(), torch.zeros(64)]
            both(*given)
            assert listening.ordinary == count
            found = listening.launched[-2:]
            self.by_hand(*given)
            listening.ordinary -= 2
            assert found == listening.launched[-2:]

    def test_what_is_compiled_needs_no_launch_of_tritons(self, listening):
        compile_together([make()])
        self.make()(*tensors(), torch.zeros(64))
        assert listening.ordinary == 0 and len(listening.launched) == 2

    @pytest.mark.parametrize('which', range(4))
    def test_a_tensor_that_is_not_aligned(self, listening, which):
        both, given = self.make(), [*tensors(), torch.zeros(64)]
        both(*given)
        given[which] = given[which][1:]
        both(*given)
        found = listening.launched[-2:]
        self.by_hand(*given)
        assert found == listening.launched[-2:]
        assert len({kernel[4] for kernel in listening.launched}) == 2 + (which in (0, 2))

    def test_an_offset_that_is_not_aligned(self, listening):
        compile_together([make()])  # the kernel that must not be taken
        both, given = Launches((make(), ((0, 1), 1, 2))), tensors()
        for _ in range(2):
            both(*given)
        make()._ordinary(((given[0], 1), *given[1:]))
        assert listening.ordinary == 3 and len(set(listening.launched)) == 1

    def test_a_profiler_sees_them(self, listening):
        from triton import knobs

        both, seen = self.make(), []
        both(*tensors(), torch.zeros(64))
        knobs.runtime.launch_enter_hook.add(seen.append)
        try:
            both(*tensors(), torch.zeros(64))
        finally:
            knobs.runtime.launch_enter_hook.remove(seen.append)
        assert len(seen) == 2


def test_a_version_that_nobody_has_read(listening, monkeypatch):
    monkeypatch.setattr(triton, '__version__', '4.0.0')
    launch._direct.cache_clear()
    one = make()
    for _ in range(2):
        one(*tensors())
    compile_together([make(BLOCK=64)])
    assert listening.ordinary == 2 and not launch._compiled


def test_compiled_together(listening):
    launches = [make(), make(n=50), make(BLOCK=64), make(dtypes=(torch.float16,) * 3)]
    compile_together(launches)
    assert listening.loaded == 3 and not listening.launched
    for one in launches:
        one(*tensors(one.dtypes[0]))
    assert listening.ordinary == 0 and listening.loaded == 3 and len(listening.launched) == 4
    own = make(n=50)
    own._ordinary(tensors())
    assert listening.loaded == 3 and listening.launched[-1][4] == listening.launched[0][4], 'Triton has another one'
    compile_together(launches)
    assert listening.loaded == 3


def test_asked_again_nothing_is_looked_for(listening, monkeypatch):
    """A backend asks at every step."""
    launches = [make(), make(BLOCK=64)]
    compile_together(launches)
    monkeypatch.setattr(launch, '_compiled', None)
    compile_together(launches)


def test_what_does_not_compile_is_told(listening):
    with pytest.raises(Exception, match='power of 2'):
        compile_together([make(), make(BLOCK=48)])
    for one in make(), make(BLOCK=64):
        one(*tensors())
    assert len(listening.launched) == 2


def test_in_the_interpreter_all_is_left_to_it(listening, monkeypatch):
    monkeypatch.setenv('TRITON_INTERPRET', '1')
    launch._direct.cache_clear()
    one = make()
    for _ in range(2):
        one(*tensors())
    assert listening.ordinary == 2 and not launch._compiled


@pytest.mark.parametrize(
    'module', [SCSA(64, qkv_bias=True), SCSA(64, window_size=-1), EMA(64)], ids=['SCSA', 'whole map', 'EMA']
)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_no_kernel_is_compiled_for_single_numbers(module, dtype, monkeypatch):
    """Triton compiles for 1 and for multiples of 16 apart unless told not to; a variant knows of neither."""
    launched, prepare = [], Launch._prepare
    monkeypatch.setattr(Launch, '_prepare', lambda self, device: launched.append(self) or prepare(self, device))
    # One at which nothing is prepared yet, as plans are remembered from test to test.
    monkeypatch.setattr('scsa_mm.analysis.host_cost.NO_DEVICE', next(devices))
    with without_kernels():
        for shape in (2, 64, 20, 24), (2, 64, 3, 5):
            x = torch.randn(shape, requires_grad=True)
            for given in x, x.contiguous(memory_format=torch.channels_last):
                module(given.to(dtype)).sum().backward()
    assert len({one.kernel.__name__ for one in launched}) > 5
    for one in launched:
        pointers, numbers = len(one.dtypes), len(one.integers)
        parameters = one.kernel.params[pointers:]
        assert not [(one.kernel, p.name) for p in parameters[:numbers] if not p.do_not_specialize]
        assert not [(one.kernel, p.name) for p in parameters[numbers:] if not p.is_constexpr]
