"""What is generated for and from kernels/ is current: the schemas in C++, the tables of kernels/README.md."""

from __future__ import annotations

import kernel_map
import operator_table
import pytest

from onnxq.execution import library
from onnxq.operators import SCHEMAS


def test_the_schemas_in_cpp_are_those_in_python() -> None:
    written = operator_table.FILE.read_text(encoding="utf-8")
    assert written == operator_table.text(), "run tools/generators/operator_table.py"


def test_every_operator_has_one_kernel() -> None:
    assert [o.name for o in kernel_map.operators()] == sorted(SCHEMAS)


def test_the_map_is_current() -> None:
    written = kernel_map.PAGE.read_text(encoding="utf-8")
    assert written == kernel_map.page(), "run tools/generators/kernel_map.py"
    assert all(f"| `{t.name}` |" in written for t in kernel_map.tiers())


@pytest.mark.skipif(not library.has_library(), reason="onnxq was built without the kernel library")
def test_the_library_knows_the_tiers_of_the_map() -> None:
    assert [(t.name, t.inner_loop) for t in kernel_map.tiers()] == [
        (t.name, t.inner_loop) for t in library.tier_table()
    ]
