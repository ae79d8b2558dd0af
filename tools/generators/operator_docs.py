"""Write docs/operators: a page for each operator of com.onnxq and the index, from the schemas in onnxq/operators.

python tools/generators/operator_docs.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxq.operators import DOMAIN, SCHEMAS, VERSION, Attribute, Schema, function_text

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "operators"
WRITTEN = "<!-- Written by tools/generators/operator_docs.py from onnxq/operators: change it there. -->\n"
INDEX = f"""\
{WRITTEN}
# Operators of `{DOMAIN}`, version {VERSION}

Integer-only models use these operators between the first QuantizeLinear and the last DequantizeLinear; operators that
only move integers (Reshape, Transpose, Slice and the like) stay standard ONNX operators, except ChannelsLast.

* Values are integers with a scale known only to the compiler of the model: real = scale · (q − zero_point). An
  *8-bit* tensor is uint8 or int8, also for activations of 2 to 7 bits, which `qmin` and `qmax` keep in range. A
  *wide* tensor is int32.
* Scalars are attributes, vectors are inputs. Inputs marked *constant* are initializers.
* A rescale multiplies by b/2^c: y = saturate(((sum + 2^(c−1)) >> c) + y_zero_point), in 64-bit integers with an
  arithmetic shift and one rounding (half up), limited to [qmin, qmax] before conversion to the type of y.
* A saved model contains for each of them a function of the same name in standard ONNX operators (opset 21 or later),
  which gives the same integers. onnxruntime uses the kernel if onnxq's library is registered, otherwise the function;
  other runtimes use the function. Functions run in onnxruntime from 1.20 on, those with INT4 weights from 1.23 on.

| operator | |
|---|---|
"""


def pages() -> dict[str, str]:
    """The text of every file in docs/operators, by its name."""
    by_page: dict[str, list[Schema]] = {}
    for schema in SCHEMAS.values():
        by_page.setdefault(schema.page or schema.name, []).append(schema)
    index = INDEX + "".join(f"| {_names(s)} | [{s[0].summary}]({page}.md) |\n" for page, s in by_page.items())
    return {"README.md": index} | {f"{page}.md": _page(page, schemas) for page, schemas in by_page.items()}


def _names(schemas: list[Schema]) -> str:
    return schemas[0].name if len(schemas) == 1 else f"{schemas[0].name} … {schemas[-1].name}"


def _page(title: str, schemas: list[Schema]) -> str:
    schema = schemas[0]
    inputs = [
        [f"`{i.name}`", ", ".join(i.types), i.shape, i.meaning, "yes" if i.constant else ""] for i in schema.inputs
    ]
    output = schema.output
    made = [f"`{output.name}`", ", ".join(output.types), output.shape, output.meaning, ""]
    attributes = [[f"`{a.name}`", _kind(a), _default(a), a.meaning] for a in schema.attributes]
    parts = [f"{WRITTEN}\n# {title}\n", f"{schema.summary}\n"]
    if len(schemas) > 1:
        parts.append(f"There are {_names(schemas)}; this page shows {schema.name}.\n")
    parts.append(_table(["input", "types", "shape", "meaning", "constant"], inputs))
    parts.append(_table(["output", "types", "shape", "meaning", ""], [made]))
    if attributes:
        parts.append(_table(["attribute", "type", "default", "meaning"], attributes))
    parts.append(f"## What it computes\n\n```\n{schema.semantics}\n```\n")
    parts.append("".join(f"* {note}\n" for note in schema.notes))
    parts.append(f"## Function body\n\n```\n{function_text(schema)}\n```\n")
    return "\n".join(part for part in parts if part)


def _kind(attribute: Attribute) -> str:
    return f"{attribute.kind}, {attribute.length}" if attribute.length else attribute.kind


def _default(attribute: Attribute) -> str:
    if attribute.default is None:
        return "required"
    return str(list(attribute.default) if isinstance(attribute.default, tuple) else attribute.default)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Write the pages, and remove those of operators that no longer exist."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = pages()
    for old in FOLDER.glob("*.md"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
