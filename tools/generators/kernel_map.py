"""Write the tables of tiers and operators in kernels/README.md, from kernels/CMakeLists.txt and the C++ sources.

`python tools/generators/kernel_map.py` after a tier or an operator was added or moved.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
PAGE = KERNELS / "README.md"


@dataclass(frozen=True)
class Tier:
    """A tier as CMake builds it. files: its own, and what it uses beyond the headers that all tiers include."""

    name: str
    needs: tuple[str, ...]
    inner_loop: str
    flags: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Operator:
    """An operator's registration. runs: the headers in cpu/ with the code that it drives."""

    name: str
    file: str
    kernel: str
    runs: tuple[str, ...]


def tiers() -> list[Tier]:
    """The tiers in kernels/CMakeLists.txt, best first; of a variable that is set twice the last value counts."""
    cmake = (KERNELS / "CMakeLists.txt").read_text(encoding="utf-8")
    variables = dict(re.findall(r"^\s*set\((\w+) ([^)]*)\)", cmake, re.MULTILINE))
    return [_tier(_expanded(line, variables)) for line in re.findall(r"^add_tier\((.*)\)$", cmake, re.MULTILINE)]


def operators() -> list[Operator]:
    """The operators that the files in kernels/ort/operators register, sorted by name."""
    found = []
    for path in sorted((KERNELS / "ort" / "operators").glob("*.cpp")):
        text = path.read_text(encoding="utf-8")
        runs = re.findall(r'#include "(cpu/(?:operators|elementwise)/\w+\.hpp)"', text)
        for name, kernel in re.findall(r"^ONNXQ_OPERATOR\((\w+), (.*)\);$", text, re.MULTILINE):
            found.append(Operator(name, path.relative_to(KERNELS).as_posix(), kernel, tuple(runs)))
    return sorted(found, key=lambda operator: operator.name)


def page() -> str:
    """kernels/README.md with its tables as they must be."""
    text = PAGE.read_text(encoding="utf-8")
    text = _replaced(
        text,
        "tiers",
        ["tier", "CPU features", "inner loop", "compiled with", "files"],
        [[f"`{t.name}`", _code(t.needs), t.inner_loop, _code([" ".join(t.flags)]), _code(t.files)] for t in tiers()],
    )
    return _replaced(
        text,
        "operators",
        ["operator", "file", "kernel class", "runs"],
        [[f"`{o.name}`", f"`{o.file}`", f"`{o.kernel}`", _code(o.runs)] for o in operators()],
    )


def _expanded(line: str, variables: dict[str, str]) -> str:
    while used := re.search(r"\$\{(\w+)\}", line):
        line = line.replace(used.group(0), variables[used.group(1)])
    return line


def _tier(line: str) -> Tier:
    found = re.fullmatch(r'(\w+) INNER_LOOP "([^"]*)"(?: NEEDS ([\w ]+?))?(?: FLAGS (.*))?', line)
    if found is None:
        raise ValueError(f'kernels/CMakeLists.txt: add_tier({line}): expected NAME INNER_LOOP "…" NEEDS … FLAGS …')
    name, inner_loop, needs, flags = found.groups(default="")
    return Tier(name, tuple(needs.split()), inner_loop, tuple(flags.split()), tuple(_files(f"cpu/tiers/{name}.cpp")))


def _files(file: str) -> list[str]:
    """A file, the folders of headers in cpu/tiers that it includes, and the file of its elementwise loops."""
    seen, waiting = [file], [file]
    while waiting:
        text = (KERNELS / waiting.pop()).read_text(encoding="utf-8")
        included = set(re.findall(r'#include "(cpu/tiers/(?:\w+/)?\w+\.hpp)"', text)) - {"cpu/tiers/tier.hpp"}
        loops = {f"cpu/elementwise/{name}.cpp" for name in re.findall(r"\belementwise_(\w+)\b", text)}
        new = sorted((included | loops) - set(seen))
        seen += new
        waiting += [path for path in new if path.startswith("cpu/tiers/")]
    return list(dict.fromkeys(_folder(path) for path in sorted(seen, key=lambda p: (p != file, p))))


def _folder(path: str) -> str:
    return path.rsplit("/", 1)[0] + "/" if path.count("/") > 2 else path


def _code(texts: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"`{text}`" for text in texts if text)


def _replaced(text: str, mark: str, head: list[str], rows: list[list[str]]) -> str:
    table = "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *rows))
    pattern = rf"(<!-- {mark}:[^\n]*-->\n).*?(<!-- /{mark} -->)"
    return re.sub(pattern, lambda m: f"{m.group(1)}\n{table}\n{m.group(2)}", text, count=1, flags=re.DOTALL)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
