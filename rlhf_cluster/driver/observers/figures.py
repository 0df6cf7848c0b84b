"""Spans of time and figures as people read them, on panels, in tables and in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def duration(seconds: float) -> str:
    """
    >>> duration(7.4), duration(192), duration(7500)
    ('7s', '3m12s', '2h05m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def figure(value: float) -> str:
    """A number at the precision a person compares: four significant digits, no exponent for everyday sizes.

    >>> figure(0.41237), figure(1234.6), figure(0.00001), figure(3.0)
    ('0.4124', '1,235', '1e-05', '3')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def columns_of(metrics: Mapping[str, float], columns: Sequence[tuple[str, str]]) -> list[str]:
    """Those of the (metric, form) that there are; a role that had nothing to do has no speed.

    >>> columns = [("rollout/tokens_per_s", "{} tok/s"), ("eval/loss", "loss {}")]
    >>> columns_of({"rollout/tokens_per_s": 0.0, "eval/loss": 0.25}, columns)
    ['loss 0.25']
    """
    told = [(metrics[name], name, form) for name, form in columns if name in metrics]
    return [form.format(figure(value)) for value, name, form in told if value or not name.endswith("/tokens_per_s")]
