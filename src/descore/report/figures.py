"""How figures are written on a page.

In: numbers, None or nan for what nobody knows. Out: short strings. Knows nothing of markup."""

import math
from collections.abc import Mapping
from typing import Any

UNKNOWN = "–"


def decimal(value: float | None, *, digits: int = 3) -> str:
    """As in .734 and −.050: without the leading zero, since most figures are shares."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{abs(value):.{digits}f}"
    sign = "−" if value < 0 and float(text) != 0 else ""
    return sign + (text.removeprefix("0") if digits else text)


def difference(value: float | None, *, digits: int = 3) -> str:
    """The same with its sign."""
    text = decimal(value, digits=digits)
    return text if text == UNKNOWN or text.startswith("−") or float(text) == 0 else f"+{text}"


def span(figure: Mapping[str, Any] | None) -> str:
    """The interval of a figure, as in [.702, .766]; empty where there is none."""
    if figure is None or figure["low"] is None or figure["high"] is None:
        return ""
    if not (math.isfinite(figure["low"]) and math.isfinite(figure["high"])):
        return ""
    return f"[{decimal(figure['low'])}, {decimal(figure['high'])}]"


def count(value: int | None) -> str:
    """As in 26,500."""
    return UNKNOWN if value is None else f"{value:,}"


def number(value: float | None) -> str:
    """Any number, at three digits or to the unit."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")


def known(value: object) -> object:
    """The value, or a dash where there is none."""
    return UNKNOWN if value is None else value
