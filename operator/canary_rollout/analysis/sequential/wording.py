"""The sentences of the comparison."""

from math import ceil, floor, log10

from canary_rollout.analysis.sequential.cells import Totals


def count(value: float) -> str:
    """``47800`` -> ``47,800``."""
    return f"{value:,.0f}"


def percent(share: float) -> str:
    """``0.0123`` -> ``1.2 %``: two significant digits."""
    value = share * 100
    if value <= 0:
        return "0 %"
    return (
        f"{value:.{max(0, 1 - floor(log10(value)))}f}".rstrip("0").rstrip(".") + " %"
        if value < 10
        else f"{value:.0f} %"
    )


def times(ratio: float) -> str:
    """``9.4`` -> ``9x``, rounded down, so that "at least" stays true."""
    if ratio >= 10:
        digits = 10 ** (floor(log10(ratio)) - 1)
        return f"{floor(ratio / digits) * digits:,.0f}x"
    return f"{floor(ratio * 100) / 100:g}x" if ratio < 2 else f"{floor(ratio * 10) / 10:g}x"


def at_most(share: float) -> str:
    """A share rounded up, so that "at most" stays true."""
    if share <= 0:
        return "0 %"
    step = 10.0 ** (floor(log10(share)) - 1)
    return percent(min(ceil(share / step - 1e-9) * step, 1.0))


def both(totals: Totals, what: str) -> str:
    """``canary 12 of 240 requests failed, stable 9 of 47,800``."""
    return (
        f"canary {count(totals.e1)} of {count(totals.n1)} requests {what}, "
        f"stable {count(totals.e2)} of {count(totals.n2)}"
    )


def worse(totals: Totals, what: str, alpha: float, ratio: float) -> str:
    """Why a comparison failed."""
    return f"{both(totals, what)}: at {percent(alpha)} false-alarm risk the canary is at least {times(ratio)} worse"


def edge(seconds: float) -> str:
    """``0.25`` -> ``250 ms``."""
    return f"{seconds * 1000:g} ms" if seconds < 1 else f"{seconds:g} s"
