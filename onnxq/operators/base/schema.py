"""Schema of an operator of com.onnxq, and its definition in standard ONNX operators as function text.

A body is in ONNX's textual form with two shorthands that `function_text` expands into Constant nodes:

* a constant named by its type and value: `int64_2`, `int32_128`, `uint8_0` are scalars, `power_61` is the int64 2^61,
  `list_1_2` is int64 [1, 2];
* an attribute of the operator where a tensor is expected: `y_zero_point` is an int64 scalar or vector with its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

DOMAIN = "com.onnxq"
VERSION = 1
OPSET = 21  # INT4 weights; the bodies mean the same in every later opset

EIGHT_BIT = ("uint8", "int8")
ANY_WIDTH = ("uint8", "int8", "int16", "int32")
WEIGHT = ("int8", "int4")
INT32 = ("int32",)

CONSTANT = re.compile(r"\b(int32|int64|uint8|power|list)((?:_\d+)+)\b")


@dataclass(frozen=True)
class Input:
    """An input. types: the allowed element types. shape: as shown in the documentation.

    constant: it must be an initializer, because kernels prepare it once when the session is created.
    """

    name: str
    types: tuple[str, ...]
    shape: str
    meaning: str
    constant: bool = False


@dataclass(frozen=True)
class Output:
    """The output. types: those that `y_type` may select, or the one that follows from the inputs."""

    name: str
    types: tuple[str, ...]
    shape: str
    meaning: str


@dataclass(frozen=True)
class Attribute:
    """An attribute, an int or a list of ints. default: None means required.

    length: of a list, None if variable. least: the smallest valid value, None for any.
    """

    name: str
    meaning: str
    default: int | tuple[int, ...] | None = None
    is_list: bool = False
    length: int | None = None
    least: int | None = None

    @property
    def required(self) -> bool:
        """Whether every node must have this attribute."""
        return self.default is None

    @property
    def kind(self) -> str:
        """Its ONNX type: int or ints."""
        return "ints" if self.is_list else "int"


@dataclass(frozen=True)
class Schema:
    """An operator of com.onnxq, version 1.

    semantics: the exact integers it computes, as a formula in plain text. body: the statements of its function, see the
    module docstring. notes: sentences for its page. page: the documentation page, if shared with other operators.
    """

    name: str
    summary: str
    inputs: tuple[Input, ...]
    output: Output
    attributes: tuple[Attribute, ...]
    semantics: str
    body: str
    notes: tuple[str, ...] = ()
    page: str = ""

    def attribute(self, name: str) -> Attribute | None:
        """The attribute with this name, or None."""
        return next((a for a in self.attributes if a.name == name), None)

    @property
    def defaults(self) -> dict[str, int | tuple[int, ...]]:
        """The default values of optional attributes."""
        return {a.name: a.default for a in self.attributes if a.default is not None}

    def places(self, names: Iterable[str]) -> tuple[int, ...]:
        """The positions of these inputs. Raises ValueError for a name that no input has."""
        order = [i.name for i in self.inputs]
        return tuple(order.index(name) for name in names)


def function_text(schema: Schema, opset: int = OPSET) -> str:
    """The function body of an operator as text for onnx.parser.parse_function. opset: of its operators."""
    lines = [line.strip() for line in schema.body.strip().splitlines() if line.strip()]
    constants = [*_attribute_constants(schema, lines), *_named_constants(lines)]
    attributes = ", ".join(_declaration(a) for a in schema.attributes)
    inputs = ", ".join(i.name for i in schema.inputs)
    signature = f"{schema.name}{f' <{attributes}>' if attributes else ''} ({inputs}) => ({schema.output.name})"
    head = [f'<domain: "{DOMAIN}", opset_import: ["": {opset}]>', signature, "{"]
    return "\n".join([*head, *(f"  {line}" for line in (*constants, *lines)), "}"])


def _declaration(attribute: Attribute) -> str:
    if attribute.default is None:
        return attribute.name
    value = list(attribute.default) if isinstance(attribute.default, tuple) else attribute.default
    return f"{attribute.name}: {attribute.kind} = {value}"


def _attribute_constants(schema: Schema, lines: list[str]) -> list[str]:
    """A Constant per attribute that a statement uses as an input (not as an attribute reference, `k = @k`)."""
    operands = {name for line in lines for name in re.findall(r"\w+", line[line.rindex("(") :])}
    return [
        f"{a.name} = Constant <value_{a.kind}: {a.kind} = @{a.name}> ()"
        for a in schema.attributes
        if a.name in operands
    ]


def _named_constants(lines: list[str]) -> list[str]:
    found = sorted({match.group(0) for line in lines for match in CONSTANT.finditer(line)})
    texts = []
    for name in found:
        kind, *values = name.split("_")
        if kind == "list":
            value = f"value_ints = [{', '.join(values)}]"
        elif kind == "power":
            value = f"value_int = {1 << int(values[0])}"
        elif kind == "int64":
            value = f"value_int = {values[0]}"
        else:
            value = f"value = {kind} {{{values[0]}}}"
        texts.append(f"{name} = Constant <{value}> ()")
    return texts
