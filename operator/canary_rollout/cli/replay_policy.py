"""The policy of a replay: a resource's ``analysis`` and ``haltRules``, without the resource."""

from typing import IO, TYPE_CHECKING, Any

from canary_rollout.cli.errors import CliError, Exit

if TYPE_CHECKING:
    from canary_rollout.analysis.sequential.replay import Replay
    from canary_rollout.model.spec import CanaryRolloutSpec


def replay_for(policy: IO[str] | None, tick: float) -> "Replay":
    """Return a replay that judges as the policy says; without one by the defaults of ``analysis``, without halt rules.

    Raises:
        CliError: the policy does not read.
    """
    from canary_rollout.analysis.comparing import policy_of
    from canary_rollout.analysis.gauges import GaugeTest
    from canary_rollout.analysis.history import HistoryTest
    from canary_rollout.analysis.sequential import Comparison, Policy
    from canary_rollout.analysis.sequential.replay import Replay
    from canary_rollout.cli.replay_rules import ReplayedRules

    raw = {} if policy is None else _read(policy)
    spec = _spec(raw, tick)
    settings = policy_of(spec)
    if settings is None:
        settings = Policy(errors=None, latency=None, gauges=None, history=None, interval=tick)
    windows = (GaugeTest(settings), HistoryTest(settings))
    rules = _named_rules(spec, raw)
    more = ReplayedRules(rules).judge if rules.halt_rules else None
    return Replay(Comparison(settings, windows), tick, more, settings.warm_up)


def _named_rules(spec: "CanaryRolloutSpec", raw: dict[str, Any]) -> "CanaryRolloutSpec":
    """Return the spec with the halt rules that the policy names, what it leaves out of a default rule filled in."""
    named = {rule.get("name") for rule in raw.get("haltRules") or ()}
    rules = tuple(rule for rule in spec.rules_for(None) if rule.name in named)
    return spec.model_copy(update={"default_halt_rules": False, "halt_rules": rules})


def _read(file: IO[str]) -> dict[str, Any]:
    import yaml

    name = getattr(file, "name", "policy")
    try:
        raw = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CliError(f"{name} is no YAML: {error}", Exit.USAGE) from error
    raw = {} if raw is None else raw
    if isinstance(raw, dict) and isinstance(raw.get("spec"), dict):
        raw = {key: value for key, value in raw["spec"].items() if key in {"analysis", "haltRules"}}
    if not isinstance(raw, dict) or not raw.keys() <= {"analysis", "haltRules"}:
        found = ", ".join(map(str, raw)) if isinstance(raw, dict) else repr(raw)[:60]
        raise CliError(f"{name} may have analysis and haltRules, found {found}", Exit.USAGE)
    return raw


def _spec(raw: dict[str, Any], tick: float) -> "CanaryRolloutSpec":
    """Return a spec with the policy in it; the rest says nothing about judging."""
    from pydantic import ValidationError

    from canary_rollout.model.explain import explain_validation_error
    from canary_rollout.model.spec import CanaryRolloutSpec
    from canary_rollout.model.units import format_duration

    around = {
        "workload": {
            "stable": {"service": "stable", "deployment": "stable"},
            "canary": {"service": "canary", "deployment": "canary"},
        },
        "traffic": {"ingressNginx": {"ingress": "replay"}},
        "metrics": {"prometheus": "http://replay.invalid", "interval": format_duration(max(tick, 1.0))},
    }
    try:
        return CanaryRolloutSpec.model_validate({**around, **raw})
    except ValidationError as error:
        raise CliError(f"policy: {explain_validation_error(error, root='policy')}", Exit.USAGE) from error
