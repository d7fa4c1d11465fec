"""The presets: formulas as data (``*.yaml``), rendered into PromQL for a set of namespaces."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, Template, TemplateError

from canary_rollout.metrics.errors import PresetError
from canary_rollout.metrics.pods import ARM_LABEL, PREFIX_PATTERN
from canary_rollout.model.units import format_duration


@dataclass(frozen=True, slots=True)
class Preset:
    """One source of metrics.

    Attributes:
        source: its name in ``metrics.source``.
        arms: ``configured`` (``metrics.arms`` tells the versions apart) or ``version`` (the series do).
        bad: template of the selector of failed requests.
        weighted_only: selector that leaves cohort members out; empty where the series do not tell.
        measures: by name, templates of the formulas.
    """

    source: str
    arms: str
    bad: Template
    weighted_only: str
    measures: Mapping[str, Template]

    def render(
        self,
        measure: str,
        *,
        window: float,
        where: str,
        labels: tuple[str, ...],
        status_label: str = "status",
        weighted_only: bool = False,
    ) -> str:
        """Return the PromQL of one measure, grouped by ``labels``, one series per version.

        Args:
            measure: a key of ``measures``.
            window: range of the rates, seconds.
            where: label matchers without braces, such as ``namespace="shop"``; values already escaped.
            labels: labels that tell the versions apart; :data:`ARM_LABEL` is derived from ``pod``.
            status_label: label that holds the HTTP status.
            weighted_only: leave cohort members out, where the series tell.
        """
        selectors = [where, self.weighted_only if weighted_only else ""]

        def total(function: str, series: str, selector: str, by: str) -> str:
            matchers = ",".join(part for part in (*selectors, selector) if part)
            inner = f"{function}({series}{{{matchers}}}[{format_duration(window)}])"
            if ARM_LABEL in labels:
                inner = f'label_replace({inner}, "{ARM_LABEL}", "$1", "pod", "{PREFIX_PATTERN}")'
            return f"sum by ({', '.join((*labels, by) if by else labels)}) ({inner})"

        def rate(series: str, selector: str = "", by: str = "") -> str:
            return total("rate", series, selector, by)

        def increase(series: str, selector: str = "", by: str = "") -> str:
            return total("increase", series, selector, by)

        bad = self.bad.render(status_label=status_label)
        return self.measures[measure].render(rate=rate, increase=increase, bad=bad)


@cache
def load(source: str) -> Preset:
    """Return the presets of a source (``app``, ``agent``).

    Raises:
        PresetError: there is no such file, or it does not have the shape of one.
    """
    try:
        raw = yaml.safe_load((files(__name__) / f"{source}.yaml").read_text(encoding="utf-8"))
        return _preset(raw)
    except (OSError, KeyError, TypeError, AttributeError, yaml.YAMLError, TemplateError) as error:
        raise PresetError(f"the presets of source {source!r} cannot be read: {error!r}") from error


def _preset(raw: Mapping[str, Any]) -> Preset:
    # Autoescape is for HTML; these templates are ours and what goes in is validated and escaped for PromQL.
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701
    return Preset(
        source=raw["source"],
        arms=raw["arms"],
        bad=environment.from_string(raw["bad"]),
        weighted_only=raw["weighted_only"],
        measures={name: environment.from_string(text.strip()) for name, text in raw["measures"].items()},
    )
