"""A user's own PromQL, with the values of one version filled in."""

import re
from typing import Final

from canary_rollout.analysis.readings import MeasureKey
from canary_rollout.metrics.pods import pod_pattern
from canary_rollout.metrics.request import MetricRequest, VersionArm
from canary_rollout.model.units import format_duration

_VARIABLE: Final = re.compile(
    r"\$(?:(namespace|deployment|service|pods|window)\b|\{(namespace|deployment|service|pods|window)\})"
)


def render_own(key: MeasureKey, request: MetricRequest, arm: VersionArm) -> str:
    """Return the query for one version; other dollars (``$1`` of ``label_replace``) are left alone.

    Everything filled in is a Kubernetes name, a duration, or a pattern made of names, so no value can end a string
    literal, whichever quotes the user wrote.
    """
    values = {
        "namespace": request.namespace,
        "deployment": arm.deployment,
        "service": arm.service,
        "pods": pod_pattern(arm),
        "window": format_duration(key.window),
    }
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], key.what)
