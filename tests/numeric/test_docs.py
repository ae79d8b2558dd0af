"""The examples in docs/arithmetic.md."""

import doctest
from pathlib import Path


def test_examples_of_the_arithmetic_page(root: Path) -> None:
    found = doctest.testfile(str(root / "docs" / "arithmetic.md"), module_relative=False, encoding="utf-8")
    assert found.attempted >= 18 and found.failed == 0
