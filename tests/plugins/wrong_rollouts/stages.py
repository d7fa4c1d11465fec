"""Stages, weights, durations and numbers that are refused."""

from wrong_rollouts.bad import CHOICES, WEIGHT, Bad, rule, stages

BAD_STAGES: tuple[Bad, ...] = (
    # weights
    Bad(
        "a weight without unit or quotes",
        WEIGHT,
        "25 %",
        {"stages": stages(25, "100%")},
        "weight: 25 could mean 25 % or 0.25 %",
    ),
    Bad(
        "a weight in quotes without a unit",
        WEIGHT,
        'weight "25" has no unit: write "25%"',
        {"stages": stages("25", "100%")},
    ),
    Bad("three decimals", WEIGHT, "is not a percentage", {"stages": stages("0.125%", "100%")}),
    Bad("a weight above 100 %", WEIGHT, "is not a percentage", {"stages": stages("101%", "100%")}),
    Bad("a negative weight", WEIGHT, "is not a percentage", {"stages": stages("-1%", "100%")}),
    Bad(
        "a weight with a line break",
        WEIGHT,
        "is not a percentage",
        {"stages": stages("5%\n", "100%")},
        "this is not a percentage",
    ),
    Bad("a float", WEIGHT, "is no string", {"stages": stages(0.5, "100%")}, "must be of type integer,string"),
    Bad(
        "a stage at 0 %",
        "spec.stages[0]",
        'a stage serves something: write "0.01%" or more',
        {"stages": stages("0.00%", "100%")},
        server_at=WEIGHT,
    ),
    # stages
    Bad(
        "stages that do not rise",
        "spec.stages",
        "stage weights rise",
        {"stages": stages("5%", "5.0%", "100%")},
    ),
    Bad(
        "stages that fall",
        "spec.stages",
        "stage weights rise",
        {"stages": stages("25%", "9%", "100%")},
    ),
    Bad(
        "no stage at 100 %",
        "spec.stages",
        "the last enabled stage has",
        {"stages": stages("5%", "25%")},
    ),
    Bad(
        "the stage at 100 % is off",
        "spec.stages",
        "the last enabled stage has",
        {"stages": [*stages("5%"), {"name": "all", "weight": "100%", "hold": "1h", "enabled": False}]},
    ),
    Bad(
        "all stages are off",
        "spec.stages",
        "at least one stage is enabled",
        {"stages": stages("100%", enabled=False)},
    ),
    Bad("no stages", "spec.stages", "at least 1", {"stages": []}, "should have at least 1 items"),
    Bad(
        "two stages of one name",
        "spec.stages",
        "rename one",
        {"stages": [*stages("5%"), {"name": "s0", "weight": "100%", "hold": "1h"}]},
    ),
    Bad(
        "too many stages",
        "spec.stages",
        "at most 32",
        {"stages": stages(*(f"{at}%" for at in range(1, 34)))},
        "must have at most 32 items",
    ),
    Bad(
        "a stage without hold",
        "spec.stages[0].hold",
        "is required",
        {"stages": [{"name": "all", "weight": "100%"}]},
        "Required value",
    ),
    Bad(
        "a stage named with blanks",
        "spec.stages[0].name",
        "is not a name",
        {"stages": stages("100%", name="all of them")},
    ),
    Bad(
        "an approval that is not required",
        "spec.stages[0].approval",
        CHOICES,
        {"stages": stages("100%", approval="yes")},
        "supported values",
    ),
    Bad(
        "maxHold below hold",
        "spec.stages[0]",
        "is below hold",
        {"stages": stages("100%", hold="1d", maxHold="23h59m")},
        server_at="spec.stages[0].maxHold",
    ),
    Bad(
        "maxHold below hold in days",
        "spec.stages[0]",
        "is below hold",
        {"stages": stages("100%", hold="1d1h", maxHold="1d")},
        server_at="spec.stages[0].maxHold",
    ),
    # durations
    Bad("a duration without unit", "spec.stages[0].hold", "is not a duration", {"stages": stages("100%", hold="60")}),
    Bad(
        "a duration without quotes",
        "spec.stages[0].hold",
        "is not a duration",
        {"stages": stages("100%", hold=60)},
        'must be of type string: "integer"',
    ),
    Bad(
        "an empty duration",
        "spec.stages[0].hold",
        "is not a duration",
        {"stages": stages("100%", hold="")},
        "should be at least 1 chars long",
    ),
    Bad("units in the wrong order", "spec.workload.drain", "largest first", {"workload.drain": "5s1m"}),
    Bad("a window below a second", "spec.metrics.window", "is too short", {"metrics.window": "999ms"}),
    Bad("an interval of nothing", "spec.metrics.interval", "is too short", {"metrics.interval": "0m0s"}),
    Bad("a rule's window of nothing", "spec.haltRules[0].window", "is too short", rule(window="0s")),
    # numbers
    Bad("a number that is none", "spec.haltRules[0].above", "is not a number", rule(above="much")),
    Bad(
        "a number without quotes",
        "spec.haltRules[0].above",
        "is not a number",
        rule(above=1),
        'must be of type string: "integer"',
    ),
    Bad("a negative number", "spec.haltRules[0].above", "is not a number", rule(above="-1")),
)
