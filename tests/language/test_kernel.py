"""Kernels as objects: signatures, optional arrays, constants, element types, grids."""

import pickle

import pytest

import mosaic_compile as mc
from mosaic_compile.language.arrays import ArrayParam, ConstParam, ScalarParam
from mosaic_compile.language.symbolic import Symbol, evaluate

T = mc.DTypeVar("T", mc.bf16, mc.f16)


@mc.kernel(
    grid=lambda M, N, BM, BN: (mc.cdiv(M, BM), mc.cdiv(N, BN)), tune=[dict(BM=32, num_warps=4), dict(BM=64)]
)
def example(
    a: T["M", "K"],
    b: mc.In[mc.f32["K", 64]],
    c: mc.Out[mc.f32["M", "N"]],
    d: mc.InOut[mc.i32["N"]],
    bias: mc.f32["N"] | None = None,
    *,
    scale: mc.f32,
    BM: mc.Const = 16,
    BN: mc.Const = 8,
):
    pass


def test_the_signature():
    kinds = {p.name: type(p) for p in example.signature.params}
    assert [n for n, k in kinds.items() if k is ArrayParam] == ["a", "b", "c", "d", "bias"]
    assert [n for n, k in kinds.items() if k is ScalarParam] == ["scale"]
    assert [n for n, k in kinds.items() if k is ConstParam] == ["BM", "BN"]
    assert example.signature.dims == ("M", "K", "N")
    assert example.signature.dtype_vars == (T,)
    assert [p.spec.access for p in example.signature.arrays] == [None, "in", "out", "inout", None]
    assert [p.spec.optional for p in example.signature.arrays] == [False] * 4 + [True]


@pytest.mark.parametrize("annotation", [mc.f32["N"] | None, None | mc.f32["N"]])
def test_optional(annotation):
    assert annotation.optional


@pytest.mark.parametrize(
    ("given", "dtype"),
    [({}, mc.bf16), (dict(T=mc.f16), mc.f16), (dict(T="f16"), mc.f16), (dict(T="bf16"), mc.bf16)],
)
def test_type_variables(given, dtype):
    spec = example.specialize(**given)
    assert spec.dtype_of(example.signature.arrays[0]) is dtype


@pytest.mark.parametrize(
    ("given", "tuned", "constants", "num_warps"),
    [
        ({}, None, dict(BM=32, BN=8), 4),
        (dict(BM=128), None, dict(BM=128, BN=8), 4),
        (dict(num_warps=8), None, dict(BM=32, BN=8), 8),
        ({}, dict(BM=64), dict(BM=64, BN=8), None),
        ({}, {}, dict(BM=16, BN=8), None),
    ],
)
def test_constants_and_options(given, tuned, constants, num_warps):
    spec = example.specialize(tuned=tuned, **given)
    assert (spec.constants, spec.options["num_warps"]) == (constants, num_warps)


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        ({}, ("cdiv(M, 32)", "cdiv(N, 8)")),
        (dict(M=100), ("4", "cdiv(N, 8)")),
        (dict(M=100, N=0), ("4", "0")),
    ],
)
def test_the_grid(dims, expected):
    assert example.grid_text(example.specialize(dims=dims)) == expected


def test_optional_arrays():
    bias = example.signature.arrays[-1]
    assert not example.specialize().has(bias)
    assert example.specialize(arrays={"bias"}).has(bias)


@pytest.mark.parametrize(
    ("grid", "text"),
    [
        (lambda N: (N,), "N"),
        (lambda N: N, "N"),
        (lambda N: (N + 1, 2 - N, N * 3), "(N + 1),(2 - N),(N * 3)"),
        (lambda N: (N // 4, N % 3, 7 // N), "(N // 4),(N % 3),(7 // N)"),
        (lambda N: (7 % N,), "(7 % N)"),
        (lambda N: (mc.minimum(N, 4), mc.maximum(2, N)), "min(N, 4),max(2, N)"),
        (lambda N: (mc.cdiv(mc.cdiv(N, 4), 2),), "cdiv(cdiv(N, 4), 2)"),
        (lambda num_sms: (num_sms,), "num_sms"),
        (lambda N, num_sms: (mc.minimum(num_sms, N),), "min(num_sms, N)"),
        ((4, 2), "4,2"),
    ],
)
def test_grids(grid, text):
    @mc.kernel(grid=grid)
    def kernel(v: mc.f32["N"]):
        pass

    assert ",".join(kernel.grid_text(kernel.specialize())) == text


@pytest.mark.parametrize(
    ("text", "values", "number"),
    [
        ("cdiv(N, 8)", dict(N=17), 3),
        ("(N + 1)", dict(N=1), 2),
        ("min(N, max(M, 3))", dict(N=9, M=1), 3),
        ("((N // 4) % 3)", dict(N=20), 2),
        ("7", {}, 7),
    ],
)
def test_evaluation_of_a_grid(text, values, number):
    assert evaluate(text, values) == number


def test_evaluation_names_what_is_missing():
    with pytest.raises(KeyError, match="N"):
        evaluate("cdiv(N, 8)", {})
    with pytest.raises(ValueError, match="not a grid expression"):
        evaluate("__import__('os')", {})


def test_symbols_are_not_compared():
    for compare in (lambda s: s == 1, lambda s: s != 1, lambda s: s < 1, lambda s: bool(s)):
        with pytest.raises(mc.MosaicError):
            compare(Symbol("N"))


def test_a_kernel_shows_its_name_and_place():
    assert repr(example).startswith("<kernel example at ")
    assert example.__name__ == "example"


def test_names_that_the_module_does_not_have():
    with pytest.raises(AttributeError, match=r"mc has no 'constexpr': annotate .* mc.Const"):
        _ = mc.constexpr
    with pytest.raises(AttributeError, match="mc has no 'zeroes': did you mean 'zeros'"):
        _ = mc.zeroes
    assert not hasattr(mc, "__wrapped__") and not hasattr(mc, "arange")
    with pytest.raises(ImportError):
        from mosaic_compile import constexpr  # noqa: F401
    assert pickle.loads(pickle.dumps(mc.f32)) == mc.f32


def sized(**entries):
    """A kernel whose entries for GPUs say when they are the first choice."""

    @mc.kernel(
        grid=lambda M, BM: (mc.cdiv(M, BM),),
        tune=dict(
            gpu=[
                dict(BM=1, num_warps=1, when=lambda M: M <= 4),
                dict(BM=16, num_warps=1, when=lambda M, N: M <= 64 and N < 1000),
                dict(BM=128, num_warps=4),
                dict(BM=64, num_warps=4),
            ],
            **entries,
        ),
    )
    def kernel(a: mc.f32["M", "N"], *, BM: mc.Const = 2):
        pass

    return kernel


@pytest.mark.parametrize(
    ("sizes", "tiles"),
    [
        (dict(M=4, N=1000), [1, 128, 64]),
        (dict(M=4, N=999), [1, 16, 128, 64]),
        (dict(M=64, N=10), [16, 128, 64]),
        (dict(M=65, N=10), [128, 64]),
        (dict(M=64), [128, 64]),  # N is not known
        (dict(M=4), [1, 128, 64]),
        ({}, [128, 64]),
    ],
    ids=str,
)
def test_entries_for_sizes(sizes, tiles):
    kernel = sized()
    assert [c["BM"] for c in kernel.first_choices("gpu", (), sizes)] == tiles
    assert [c["BM"] for c in kernel.candidates("gpu")] == [1, 16, 128, 64]  # tuning tries all
    assert kernel.defaults == dict(BM=128, num_warps=4)
    assert not any("when" in c for c in kernel.tune["gpu"])


def test_entries_for_sizes_alone():
    kernel = sized(cpu=[dict(BM=8, when=lambda M: M > 8), dict(BM=4, when=lambda M: M > 4)])
    assert [c["BM"] for c in kernel.first_choices("cpu", (), dict(M=6))] == [4]
    assert [c["BM"] for c in kernel.first_choices("cpu", (), dict(M=1))] == [8, 4]
    assert [c["BM"] for c in kernel.first_choices("cpu", {"BM"}, dict(M=1))] == [8]


def test_ahead_of_time_the_sizes_are_those_that_are_fixed():
    from mosaic_compile.driver import choices

    kernel = sized()
    assert [s.constants["BM"] for s in choices(kernel, "gpu", dims=dict(M=4))] == [1, 128, 64]
    assert [s.constants["BM"] for s in choices(kernel, "gpu")] == [128, 64]
    assert [s.constants["BM"] for s in choices(kernel, "gpu", dims=dict(M=4), BM=32)] == [32]


def test_a_when_that_fails():
    @mc.kernel(tune=[dict(BM=1, when=lambda M: 100 // M > 1), dict(BM=2)])
    def kernel(a: mc.f32["M"], *, BM: mc.Const = 2):
        pass

    with pytest.raises(mc.MosaicError) as error:
        kernel.first_choices("gpu", (), dict(M=0))
    assert error.value.message == (
        "`when` in an entry of `tune` of 'kernel' fails for M=0: integer division or modulo by zero"
    )
    assert error.value.help == "compare dimensions with numbers: when=lambda M: M <= 16"
