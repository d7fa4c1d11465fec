"""The tables of docs/presets.md. ``python -m canary_rollout.metrics.presets.page`` prints them; a test holds the page to them."""

import sys
from collections.abc import Iterator

from canary_rollout.metrics.presets import COMMON, Presets, load
from canary_rollout.model.metrics import SOURCES


def tables() -> str:
    """Return both tables, as Markdown."""
    lines = ["| `metrics.source` | what it is | measures | needs |", "|---|---|---|---|"]
    lines += [_source(load(name)) for name in SOURCES]
    lines += ["", "| preset | what it is | series | set |", "|---|---|---|---|"]
    for name in COMMON:
        lines += _measures(load(name))
    lines += ["", "| set | needs |", "|---|---|"]
    lines += [f"| `{name}` | {_cell(load(name).of.needs)} |" for name in COMMON]
    return "\n".join(lines) + "\n"


def _source(presets: Presets) -> str:
    own = [name for name in presets.measures if name != "requests"]
    quantiles = [name for name in own if name.startswith("latency-p")]
    rest = [name for name in own if name not in quantiles]
    names = [f"`{name}`" for name in rest]
    if quantiles:
        names.append(f"`latency-` {', '.join(name.removeprefix('latency-') for name in quantiles)}")
    of = presets.of
    return f"| `{of.name}` | {_cell(of.description)} | {', '.join(names)} | {_cell(of.needs)} |"


def _measures(presets: Presets) -> Iterator[str]:
    for name, formula in presets.measures.items():
        series = ", ".join(f"`{one}`" for one in formula.series())
        yield f"| `{name}` | {_cell(formula.description)} | {series} | `{presets.of.name}` |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(tables())
