"""Unique names."""

from __future__ import annotations


def fresh_name(base: str, taken: set[str]) -> str:
    """`base` itself if it is not taken, else base_1, base_2, …; added to `taken`."""
    name, i = base, 1
    while name in taken:
        name, i = f"{base}_{i}", i + 1
    taken.add(name)
    return name
