"""Names, shapes and types of inputs, and what is refused."""

import numpy as np
import onnx.parser
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.data.spec import BatchPlan, InputSpec, apply_shapes, cast, conform, format_shape, input_specs, parse_shape
from onnxq.errors import ConfigError, DataError

F32, I64, I32, U8 = (np.dtype(t) for t in ("float32", "int64", "int32", "uint8"))
IMAGE = InputSpec("input", ("N", 3, 4, 4), F32)


def test_input_specs_reads_a_graph() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        m (float[N, 3, 8, ?] x, int64[2] ids, float scalar, bfloat16[1] b, float[0, 4] empty) => (float[N, 3, 8, 8] y)
        { y = Identity (x) }
    """)
    assert input_specs(gs.import_onnx(model)) == (
        InputSpec("x", ("N", 3, 8, None), F32),
        InputSpec("ids", (2,), I64),
        InputSpec("scalar", (), F32),
        InputSpec("b", (1,), np.dtype(onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16))),
        InputSpec("empty", (0, 4), F32),
    )


def test_input_specs_refuses_what_is_no_tensor() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        m (seq(float[2]) s) => (float[2] y) { zero = Constant <value_int = 0> () y = SequenceAt (s, zero) }
    """)
    with pytest.raises(DataError, match="'s' is not a tensor"):
        input_specs(gs.import_onnx(model))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input:1x3x224x224", ("input", (1, 3, 224, 224))),
        ("module/conv:0:1x8", ("module/conv:0", (1, 8))),
        ("a b:5", ("a b", (5,))),
        ("x:0X4", ("x", (0, 4))),
    ],
)
def test_parse_shape(text: str, expected: tuple[str, tuple[int, ...]]) -> None:
    assert parse_shape(text) == expected


@pytest.mark.parametrize(
    "text", ["", "input", ":1x3", "input:", "input:1x", "input:1,3", "input:-1x3", "input:?x3", "1x3"]
)
def test_parse_shape_refuses(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME:DIMS"):
        parse_shape(text)


@given(st.text(min_size=1).filter(lambda s: "\n" not in s), st.lists(st.integers(0, 10**6), min_size=1, max_size=6))
def test_parse_shape_reads_back_any_name(name: str, dims: list[int]) -> None:
    assert parse_shape(f"{name}:{format_shape(dims)}") == (name, tuple(dims))


def test_apply_shapes() -> None:
    assert apply_shapes([IMAGE], {"input": (8, 3, 4, 4)})[0].shape == (8, 3, 4, 4)
    with pytest.raises(ConfigError, match="'inptu', which is not an input of the model; did you mean 'input'"):
        apply_shapes([IMAGE], {"inptu": (1, 3, 4, 4)})
    with pytest.raises(ConfigError, match="Nx3x4x4 in the model; 1x3x5x4 does not fit"):
        apply_shapes([IMAGE], {"input": (1, 3, 5, 4)})
    with pytest.raises(ConfigError, match="does not fit"):
        apply_shapes([IMAGE], {"input": (1, 3, 4)})


@pytest.mark.parametrize(
    ("shapes", "carriers", "fixed"),
    [
        ([("N", 3)], "a", None),
        ([(None, 3), ("M", 2)], "ab", None),
        ([(1, 3), (1, 2)], "ab", 1),
        ([(8, 3)], "a", 8),
        ([("N", 3), ()], "a", None),
        ([("N", 3), (1, 2)], "a", None),  # a free batch beside a table
        ([(1, 3), (100, 4)], "", None),
        ([()], "", None),
        ([(0, 3)], "", None),
        ([None], "", None),
    ],
)
def test_batch_plan(shapes: list, carriers: str, fixed: int | None) -> None:
    inputs = [InputSpec(name, shape, F32) for name, shape in zip("abc", shapes, strict=False)]
    plan = BatchPlan.of(inputs)
    assert (plan.carriers, plan.fixed) == (tuple(carriers), fixed)


@pytest.mark.parametrize(
    ("given_dtype", "wanted", "value"),
    [
        ("float64", "float32", 1.5),
        ("float16", "float32", 1.5),
        ("float32", "float16", 1.5),
        (">f4", "float32", 1.5),
        ("int32", "int64", -7),
        ("uint8", "int64", 200),
        ("int64", "int32", 2**31 - 1),
        ("bool", "bool", True),
        ("U3", "object", "abc"),
    ],
)
def test_safe_casts_keep_the_value(given_dtype: str, wanted: str, value: object) -> None:
    out = cast(np.array([value], given_dtype), InputSpec("x", (1,), np.dtype(wanted)), "here")
    assert out.dtype == np.dtype(wanted)
    assert out[0] == value


def test_cast_to_bfloat16() -> None:
    bfloat16 = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16))
    spec = InputSpec("x", (2,), bfloat16)
    assert cast(np.array([1.5, -2.0]), spec, "here").astype(np.float32).tolist() == [1.5, -2.0]
    with pytest.raises(DataError, match="NaN"):
        cast(np.array([1.5, np.nan]), spec, "here")


@pytest.mark.parametrize(
    ("given_dtype", "wanted", "message"),
    [
        ("int64", "float32", "is int64, expected float32"),
        ("float32", "int64", "is float32, expected int64"),
        ("uint8", "float32", "is uint8, expected float32; pixels need a preprocessing spec"),
        ("bool", "int64", "is bool, expected int64"),
        ("complex64", "float32", "is complex64, expected float32"),
        ("object", "float32", "is object, expected float32"),
    ],
)
def test_other_types_are_refused(given_dtype: str, wanted: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        cast(np.zeros(2, given_dtype), InputSpec("x", (2,), np.dtype(wanted)), "here")


@pytest.mark.parametrize(
    ("values", "wanted", "message"),
    [
        (np.array([1, 2**31]), "int32", "contains 2147483648, too large for int32"),
        (np.array([-1, 3]), "uint8", "contains -1, too large for uint8"),
        (np.array([1e300]), "float32", "values too large for float32"),
        (np.array([70000], np.float32), "float16", "values too large for float16"),
        (np.array([1.0, np.nan], np.float32), "float32", "contains NaN"),
        (np.array([np.nan]), "float32", "contains NaN"),
    ],
)
def test_values_that_do_not_survive_are_refused(values: np.ndarray, wanted: str, message: str) -> None:
    with pytest.raises(DataError, match=f"here: input 'x' .*{message}"):
        cast(values, InputSpec("x", (None,), np.dtype(wanted)), "here")


def test_infinity_is_data() -> None:
    mask = np.array([0.0, -np.inf])
    assert cast(mask, InputSpec("mask", (2,), F32), "here").tolist() == [0.0, -np.inf]


def test_conform_copies() -> None:
    buffer = np.zeros((1, 3, 4, 4), np.float32)
    out = conform({"input": buffer}, [IMAGE], "here")["input"]
    buffer[:] = 1
    assert not out.any()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 4, 5), "has shape 1x3x4x5, expected Nx3x4x4 \\(axis 3 must be 4\\)"),
        ((3, 4, 4), "has shape 3x4x4, expected Nx3x4x4 \\(rank 3 instead of 4; is the leading batch axis missing"),
        ((), "has shape scalar, expected Nx3x4x4 \\(rank 0"),
    ],
)
def test_conform_refuses_shapes(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=f"a.npz: input 'input' {message}"):
        conform({"input": np.zeros(shape, np.float32)}, [IMAGE], "a.npz")


def test_conform_names_expected_and_given() -> None:
    specs = [IMAGE, InputSpec("mask", (1,), F32)]
    with pytest.raises(DataError) as caught:
        conform({"input": 0, "maks": 0}, specs, "sample 3")
    assert str(caught.value) == (
        "sample 3: expected the model's inputs 'input', 'mask', got 'input', 'maks'; is 'maks' meant to be 'mask'?"
    )
    with pytest.raises(DataError, match="got nothing"):
        conform({}, specs, "sample 3")


def test_conform_refuses_ragged_lists() -> None:
    with pytest.raises(DataError, match="sample 0: input 'input' cannot be converted to an array"):
        conform({"input": [[1.0], [1.0, 2.0]]}, [IMAGE], "sample 0")


def test_unknown_rank_takes_any_shape() -> None:
    assert conform({"x": np.zeros((2, 3), np.float32)}, [InputSpec("x", None, F32)], "here")["x"].shape == (2, 3)


def test_inputs_that_no_memory_holds_are_refused_before_they_are_drawn() -> None:
    def specs(dims: str, element: str = "float") -> tuple[InputSpec, ...]:
        graph = onnx.parser.parse_graph(f"g ({element}[{dims}] x) => (y) {{ y = Identity(x) }}")
        return input_specs(gs.import_onnx(onnx.helper.make_model(graph)))

    assert specs("1073741824")[0].shape == (1 << 30,)  # 4 GiB
    assert specs("N, 0, 9999999999")[0].shape == ("N", 0, 9999999999)
    with pytest.raises(DataError, match=r"input 'x' \(float32 1073741825\) takes 4\.0 GiB a feed"):
        specs("1073741825")
    with pytest.raises(DataError, match=r"takes 16\.0 GiB a feed; the limit is 4 GiB"):
        specs("N, 65536, 32768", "double")
    with pytest.raises(DataError, match="the limit is 4 GiB"):
        apply_shapes([IMAGE], {"input": (1 << 40, 3, 4, 4)})
