"""What other tools would have decided on the same scrapes: their rules as their code has them, not as their manuals read.

Every rule takes `seen` (cumulative counts of both arms as of the last scrapes, one row every `STEP` seconds from the first
weight, `Scrapes.seen()`) and the stages, and answers the second at which it rolls back, or None. Versions read: Flagger
15bd6ad (`scheduler.go`: failed checks are counted over the whole rollout and looked at before the next check; no value is a
failed check), Argo Rollouts 9f8d111 (`analysis.go`: aborts on failure number failureLimit + 1), Kayenta a69573b
(`MannWhitneyClassifier`: 98 % interval, tolerance a quarter of the estimated difference).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Seen = Mapping[str, Floats]
Stages = Sequence[tuple[int, float]]
STEP = 5.0
LIMIT = 0.01
ENOUGH = 100
Z_98 = 2.3263478740408408  # both the two-sided 98 % interval and the one-sided 1 % test


def _window(values: Floats, seconds: float) -> Floats:
    """Increase over the last `seconds` at every row; before that much has passed, since the first row."""
    back = round(seconds / STEP)
    return values - np.concatenate([np.full(min(back, len(values)), values[0]), values[: max(len(values) - back, 0)]])


def _share(errors: Floats, requests: Floats) -> Floats:
    """Errors over requests; NaN where there were none."""
    return np.divide(errors, requests, out=np.full(len(errors), np.nan), where=requests > 0)


def _rows(seen: Seen, every: float) -> npt.NDArray[np.int64]:
    step = round(every / STEP)
    return np.arange(step, len(seen["canary n"]), step)


def flagger(seen: Seen, _: Stages, interval: float = 60.0, threshold: int = 5) -> float | None:
    """Success rate of the last minute below 99 %, or no value, is a failed check; `threshold` of them, one interval later."""
    rate = _share(_window(seen["canary e"], 60), _window(seen["canary n"], 60))
    rows = _rows(seen, interval)
    failed = np.flatnonzero(~(rate[rows] <= LIMIT))
    if len(failed) < threshold:
        return None
    at = float(rows[failed[threshold - 1]] * STEP + interval)
    return at if at <= (len(rate) - 1) * STEP else None


def argo(seen: Seen, _: Stages, interval: float = 60.0, failure_limit: int = 3) -> float | None:
    """`successCondition` of the last minute not true (NaN is not): measurement number failureLimit + 1 aborts at once."""
    rate = _share(_window(seen["canary e"], 60), _window(seen["canary n"], 60))
    rows = _rows(seen, interval)
    failed = np.flatnonzero(~(rate[rows] <= LIMIT))
    return float(rows[failed[failure_limit]] * STEP) if len(failed) > failure_limit else None


def alert(seen: Seen, _: Stages) -> float | None:
    """A Prometheus alert `rate[1m] > 1 %` with `for: 5m`, evaluated every 15 s; no value resets it."""
    rows = _rows(seen, 15)
    over = _share(_window(seen["canary e"], 60), _window(seen["canary n"], 60))[rows] > LIMIT
    since: float | None = None
    for row, breach in zip(rows, over, strict=True):
        at = float(row * STEP)
        since = (at if since is None else since) if breach else None
        if since is not None and at - since >= 300:
            return at
    return None


def average(seen: Seen, _: Stages) -> float | None:
    """The average of five minutes is above 1 %, looked at every 15 s once five minutes have passed."""
    rate = _share(_window(seen["canary e"], 300), _window(seen["canary n"], 300))
    return _first(rate > LIMIT, _rows(seen, 15), after=300)


def twice(seen: Seen, stages: Stages) -> float | None:
    """Canary above twice stable with at least 100 canary requests, counted since the stage began, every 15 s."""
    begun = _begun(len(seen["canary n"]), stages)
    ne, nc, se, sn = (seen[key] - seen[key][begun] for key in ("canary e", "canary n", "stable e", "stable n"))
    worse = (ne * sn > 2 * se * nc) & (nc >= ENOUGH)
    return _first(worse, _rows(seen, 15))


def twice_window(seen: Seen, _: Stages) -> float | None:
    """The same over the last five minutes."""
    ne, nc, se, sn = (_window(seen[key], 300) for key in ("canary e", "canary n", "stable e", "stable n"))
    return _first((ne * sn > 2 * se * nc) & (nc >= ENOUGH), _rows(seen, 15))


def z_test(seen: Seen, stages: Stages) -> float | None:
    """A fixed-sample pooled z-test at 1 %, looked at every 15 s as if each look were the only one."""
    begun = _begun(len(seen["canary n"]), stages)
    e1, n1, e2, n2 = (seen[key] - seen[key][begun] for key in ("canary e", "canary n", "stable e", "stable n"))
    ok = (n1 >= ENOUGH) & (n2 > 0)
    m1, m2 = np.maximum(n1, 1), np.maximum(n2, 1)
    pooled = (e1 + e2) / (m1 + m2)
    sd = np.sqrt(pooled * (1 - pooled) * (1 / m1 + 1 / m2))
    return _first(ok & (e1 / m1 - e2 / m2 > Z_98 * sd) & (sd > 0), _rows(seen, 15))


def kayenta(seen: Seen, stages: Stages) -> float | None:
    """The judge on one-minute error rates of every stage, at the stage's end."""
    at = 0.0
    for _, seconds in stages:
        rows = np.arange(
            round((at + 60) / STEP), min(round((at + seconds) / STEP), len(seen["canary n"]) - 1) + 1, round(60 / STEP)
        )
        at += seconds
        canary, stable = (
            _share(_window(seen[f"{arm} e"], 60)[rows], _window(seen[f"{arm} n"], 60)[rows])
            for arm in ("canary", "stable")
        )
        if high(canary[~np.isnan(canary)], stable[~np.isnan(stable)]):
            return at
    return None


def _first(breach: npt.NDArray[np.bool_], rows: npt.NDArray[np.int64], after: float = 0.0) -> float | None:
    rows = rows[rows * STEP >= after]
    hit = np.flatnonzero(breach[rows])
    return float(rows[hit[0]] * STEP) if len(hit) else None


def _begun(length: int, stages: Stages) -> npt.NDArray[np.int64]:
    """Row at which the stage of every row began."""
    out, at = np.zeros(length, np.int64), 0.0
    for _, seconds in stages:
        first = round(at / STEP)
        out[first + 1 :] = first
        at += seconds
    return out


def high(canary: Floats, stable: Floats, tolerance: float = 0.25) -> bool:
    """Kayenta's `High`: the lower end of the interval of the shift is above `tolerance` of its estimate."""
    if not len(canary) or not len(stable) or len(np.unique(np.concatenate([canary, stable]))) == 1:
        return False
    spread = float(max(canary.max(), stable.max()) - min(canary.min(), stable.min())) + 1e-9
    estimate = _root(canary, stable, 0.0, spread, correct=False)
    return _root(canary, stable, Z_98, spread, correct=True) > tolerance * abs(estimate)


def _root(x: Floats, y: Floats, target: float, spread: float, *, correct: bool) -> float:
    """The shift d at which the Mann-Whitney statistic of x - d against y falls to `target` standard deviations."""
    low, high_ = -spread, spread
    for _ in range(40):
        middle = (low + high_) / 2
        if _statistic(x - middle, y, correct=correct) > target:
            low = middle
        else:
            high_ = middle
    return (low + high_) / 2


def _statistic(x: Floats, y: Floats, *, correct: bool) -> float:
    n, m = len(x), len(y)
    together = np.concatenate([x, y])
    _, where, ties = np.unique(together, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[where]
    off = float(ranks[:n].sum()) - n * (n + 1) / 2 - n * m / 2
    tied = float((ties.astype(float) ** 3 - ties).sum()) / ((n + m) * (n + m - 1))
    sd = math.sqrt(max(n * m / 12 * (n + m + 1 - tied), 1e-12))
    return (off - (math.copysign(0.5, off) if correct and off else 0.0)) / sd


RULES: dict[str, Callable[[Seen, Stages], float | None]] = {
    "Flagger 60 s, 5 failed": flagger,
    "Flagger 10 s, 5 failed": lambda seen, stages: flagger(seen, stages, 10.0),
    "Argo 60 s, failureLimit 3": argo,
    "alert >1 % for 5 m": alert,
    "5 m average >1 %": average,
    ">2x stable, n>=100": twice,
    ">2x stable, n>=100, 5 m": twice_window,
    "z-test 1 %, peeked": z_test,
    "Kayenta, 60 x 1 m": kayenta,
}
REFERENCE = "Flagger 60 s, 5 failed"
