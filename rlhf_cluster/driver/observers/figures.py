"""Spans of time and figures as people read them, on panels, in tables and in sentences."""

from __future__ import annotations


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
