"""Human-readable figures. Prefixes are decimal: 1 kB is 1000 bytes."""

from __future__ import annotations

_PREFIXES = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def number(value: float | None) -> str:
    """300 815 000 → 300.8 M; ? for None."""
    if value is None:
        return "?"
    for size, prefix in _PREFIXES:
        if abs(value) >= size * 0.9995:
            return f"{_short(value / size)} {prefix}"
    return _short(value) if isinstance(value, float) else str(value)


def size(value: float | None) -> str:
    """13 951 272 → 13.95 MB."""
    text = number(value)
    return f"{text}B" if text[-1:].isalpha() else f"{text} B"


def seconds(value: float | None) -> str:
    """Duration: 0.42 s, 12.3 s, 3 min 05 s, 2 h 10 min; – for None."""
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def milliseconds(value: float) -> str:
    """0.0123 (seconds) → 12.3 ms."""
    return f"{_short(1e3 * value)} ms"


def share(part: float, whole: float) -> str:
    """A ratio as a percentage, e.g. 25.8 %; – if the whole is 0."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def percent(value: float | None) -> str:
    """A share between 0 and 1 as a percentage, e.g. 88.33 %; – for None."""
    return "–" if value is None else f"{100 * value:.2f} %"


def bits(value: int | None) -> str:
    """A width in bits; "float" for 32, – for None."""
    return "–" if value is None else f"float{value}" if value >= 16 else str(value)


def _short(value: float) -> str:
    """At most four significant digits."""
    text = f"{value:.2f}" if abs(value) < 100 else f"{value:.1f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
