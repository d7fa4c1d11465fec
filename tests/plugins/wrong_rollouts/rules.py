"""Metrics, halt rules and gates that are refused, and fields that nobody has."""

from rollouts import GONE, RULE

from wrong_rollouts.bad import CHOICES, GATE_BOUNDS, RULE_BOUNDS, Bad, gate, rule, stages

BAD_RULES: tuple[Bad, ...] = (
    # metrics
    Bad(
        "an address without scheme",
        "spec.metrics.prometheus",
        "is not an http or https address",
        {"metrics.prometheus": "prometheus:9090"},
    ),
    Bad(
        "an ftp address",
        "spec.metrics.prometheus",
        "is not an http or https address",
        {"metrics.prometheus": "ftp://prometheus"},
    ),
    Bad(
        "credentials in the address",
        "spec.metrics.prometheus",
        "carries credentials",
        {"metrics.prometheus": "http://me:secret@prometheus:9090"},
    ),
    Bad(
        "a query in the address",
        "spec.metrics.prometheus",
        "is not an http or https address",
        {"metrics.prometheus": "http://prometheus:9090/?a=b"},
    ),
    Bad(
        "arms by a label without its values",
        "spec.metrics.arms",
        "by: label needs label, stable and canary",
        {"metrics.arms": {"by": "label", "label": "version"}},
    ),
    Bad(
        "arms by pod with a label",
        "spec.metrics.arms",
        "by: pod and by: service take none of them",
        {"metrics.arms": {"label": "version"}},
    ),
    Bad(
        "arms with one value for both",
        "spec.metrics.arms",
        "different values on stable and canary",
        {"metrics.arms": {"by": "label", "label": "version", "stable": "v1", "canary": "v1"}},
    ),
    Bad(
        "an unknown way to tell arms apart",
        "spec.metrics.arms.by",
        CHOICES,
        {"metrics.arms": {"by": "magic"}},
        "supported values",
    ),
    # rules and gates
    Bad(
        "a rule about nothing",
        "spec.haltRules[0]",
        "name exactly one of preset (a ready-made query), query (PromQL of your own) and alert (firing alerts); found none",
        rule(preset=GONE),
    ),
    Bad("a rule about two things", "spec.haltRules[0]", "name exactly one of preset", rule(query="up")),
    Bad(
        "a rule without a bound",
        "spec.haltRules[0]",
        f"halt rule errors names exactly one of {RULE_BOUNDS}; found none",
        rule(above=GONE),
    ),
    Bad(
        "a rule with two bounds",
        "spec.haltRules[0]",
        f"halt rule errors names exactly one of {RULE_BOUNDS}; found",
        rule(below="1"),
    ),
    Bad("two rules of one name", "spec.haltRules", "rename one", {"haltRules": [RULE, RULE]}),
    Bad("an unknown action", "spec.haltRules[0].action", CHOICES, rule(action="Explode"), "supported values"),
    Bad("a preset that is no name", "spec.haltRules[0].preset", "is not the name of a preset", rule(preset="Vibes!")),
    Bad(
        "an alert with a bound",
        "spec.haltRules[0]",
        "with an alert",
        rule(preset=GONE, alert={"labels": {"severity": "critical"}}),
        f"halt rule errors names exactly one of {RULE_BOUNDS}",
    ),
    Bad(
        "an alert of anything",
        "spec.haltRules[0].alert.labels",
        "too short",
        rule(preset=GONE, above=GONE, alert={"labels": {}}),
        "should have at least 1 properties",
    ),
    Bad(
        "a baseline of a plain threshold",
        "spec.haltRules[0]",
        "a baseline belongs to a ratio or a sigma",
        rule(baseline={"from": "SameHour"}),
        server_at="spec.haltRules[0].baseline",
    ),
    Bad(
        "a sigma of now",
        "spec.haltRules[0]",
        "a sigma needs the baseline SameHour",
        rule(above=GONE, aboveSigma="3", baseline={"from": "Stable"}),
        server_at="spec.haltRules[0].baseline",
    ),
    Bad(
        "a fixed baseline without its value",
        "spec.haltRules[0].baseline",
        "a baseline has a value if it is Fixed",
        rule(above=GONE, aboveRatio="2", baseline={"from": "Fixed"}),
    ),
    Bad(
        "an unknown baseline",
        "spec.haltRules[0].baseline.from",
        CHOICES,
        rule(above=GONE, aboveRatio="2", baseline={"from": "Yesterday"}),
        "supported values",
    ),
    Bad(
        "two entry gates of one name",
        "spec.stages[0]",
        "the gates of a stage have unique names",
        {"stages": stages("100%", entry=[{"preset": "error-rate", "max": "1%"}] * 2)},
        server_at="spec.stages[0].entry",
    ),
    Bad(
        "two rules of one name in a stage",
        "spec.stages[0]",
        "two halt rules of a stage have the same name",
        {"stages": stages("100%", haltRules=[RULE, RULE])},
        server_at="spec.stages[0].haltRules",
    ),
    Bad(
        "a tolerance below one",
        "spec.analysis",
        'is out of range: write "1" to "100"',
        {"analysis": {"tolerance": "0.9"}},
        server_at="spec.analysis.tolerance",
    ),
    Bad(
        "a false rollback rate of everything",
        "spec.analysis",
        "is out of range",
        {"analysis": {"falseRollbackRate": "51%"}},
        server_at="spec.analysis.falseRollbackRate",
    ),
    Bad(
        "an unknown action of a test",
        "spec.analysis.actions.errors",
        CHOICES,
        {"analysis": {"actions": {"errors": "Explode"}}},
        "supported values",
    ),
    Bad(
        "an unknown kind of rule set",
        "spec.haltRuleSets[0].kind",
        CHOICES,
        {"haltRuleSets": [{"name": "gold", "kind": "RuleSet"}]},
        "supported values",
    ),
    Bad(
        "a variable that ends a string",
        "spec.haltRuleSets[0].variables.tier",
        "is not the value of a variable",
        {"haltRuleSets": [{"name": "gold", "variables": {"tier": 'x"} or up{job="'}}]},
        "should match",
    ),
    Bad(
        "an empty query",
        "spec.haltRules[0].query",
        "at least 1",
        rule(preset=GONE, query=""),
        "should be at least 1 chars long",
    ),
    Bad(
        "an endless query",
        "spec.haltRules[0].query",
        "at most 4096",
        rule(preset=GONE, query="x" * 4097),
        "may not be more than 4096",
    ),
    Bad(
        "a gate without a bound",
        "spec.stages[0].exit[0]",
        f"a gate names exactly one of {GATE_BOUNDS}; found none",
        gate(preset="error-rate"),
    ),
    Bad(
        "a gate with two bounds",
        "spec.stages[0].exit[0]",
        f"a gate names exactly one of {GATE_BOUNDS}; found",
        gate(preset="error-rate", max="1%", maxRatio="2"),
    ),
    Bad("a gate about nothing", "spec.stages[0].exit[0]", "name exactly one of preset", gate(name="nothing", max="1%")),
    Bad(
        "a nameless gate with a query",
        "spec.stages[0].exit[0]",
        "a gate without a preset needs a name",
        gate(query="up", min="1"),
    ),
    Bad(
        "two gates of one name",
        "spec.stages[0]",
        "the gates of a stage have unique names",
        {
            "stages": stages(
                "100%", exit=[{"preset": "error-rate", "max": "1%"}, {"preset": "error-rate", "maxRatio": "2"}]
            )
        },
        server_at="spec.stages[0].exit",
    ),
    Bad(
        "an onNoData that goes on",
        "spec.onNoData.then",
        CHOICES,
        {"onNoData": {"then": "Continue"}},
        "supported values",
    ),
    Bad("paused in quotes", "spec.paused", "write true or false", {"paused": "yes"}, "must be of type boolean"),
    Bad("a misspelt field", "spec.haltRule", "did you mean haltRules?", {"haltRule": []}, "unknown field"),
    Bad(
        "a misspelt field inside",
        "spec.stages[0].exits",
        "did you mean exit?",
        {"stages": stages("100%", exits=[])},
        "unknown field",
    ),
)
