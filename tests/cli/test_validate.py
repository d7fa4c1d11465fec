"""``validate``: every problem of a manifest with its line, without a cluster."""

import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]

GOOD = """\
# A comment first.
apiVersion: canaryrollout.dev/v1alpha1
kind: CanaryRollout
metadata: {name: checkout, namespace: shop}
spec:
  workload:
    stable: {service: checkout, deployment: checkout}
    canary: {service: checkout-canary, deployment: checkout-canary}
  traffic:
    nginx: {service: edge}
  metrics: {prometheus: "http://prometheus.monitoring:9090"}
  stages:
    - name: few
      weight: "0.5%"
      hold: 1h
    - {name: all, weight: "100%", hold: 1h}
  haltRules:
    - {name: errors, preset: error-rate, above: "1%", for: 5m}
"""


@pytest.fixture
def check(world, tmp_path):
    """Validate texts as files; the result with the problems as (file, line, field, warning)."""

    def run(*texts, args=()):
        files = []
        for place, text in enumerate(texts):
            file = tmp_path / f"{place}.yaml"
            file.write_text(text, encoding="utf-8")
            files.append(str(file))
        result = world.run("validate", *files, *args, "-o", "json")
        result.data = json.loads(result.stdout)
        result.found = [(entry["line"], entry["field"], entry["warning"]) for entry in result.data["problems"]]
        result.said = " ".join(entry["message"] for entry in result.data["problems"])
        return result

    return run


def test_a_good_manifest_is_said_to_be_valid(world, tmp_path):
    text = GOOD.replace("  haltRules:", "  defaultHaltRules: false\n  haltRules:")
    (tmp_path / "good.yaml").write_text(text, encoding="utf-8")
    result = world.run("validate", str(tmp_path / "good.yaml"))
    assert result.exit_code == 0
    assert result.stdout.endswith("good.yaml:2: checkout is valid: nginx, stages 0.5%, 100%, 1 halt rule\n")
    assert world.targets == []


def test_standard_input_is_read_too(world):
    result = world.run("validate", "-", stdin=GOOD)
    assert result.stdout.startswith("stdin:2: checkout is valid")


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_valid(world, file):
    kinds = {"CanaryRollout", "HaltRuleSet", "ClusterHaltRuleSet"}
    ours = [found for found in yaml.safe_load_all(file.read_text()) if found and found["kind"] in kinds]
    result = world.run("validate", str(file))
    assert result.exit_code == (0 if ours else 2)
    assert result.stdout.count(" is valid: ") == len(ours)


@pytest.mark.parametrize(
    ("before", "after", "line", "field", "said"),
    [
        ('weight: "0.5%"', "weight: 5", 14, "spec.stages[0].weight", 'write "5%" or "0.05%"'),
        ('weight: "0.5%"', 'weight: "0.5"', 14, "spec.stages[0].weight", 'write "0.5%"'),
        ("hold: 1h", "hlod: 1h", 15, "spec.stages[0].hlod", "did you mean hold?"),
        ("preset: error-rate", "preset: eror-rate", 18, "spec.haltRules[0].preset", "error-rate"),
        ("v1alpha1", "v1", 2, "apiVersion", "canaryrollout.dev/v1alpha1"),
        ("name: checkout,", "name: Checkout,", 4, "metadata.name", "lower-case"),
        ("name: checkout,", f"name: {'c' * 51},", 4, "metadata.name", "51 characters and may have 50"),
        ("namespace: shop", "namespace: a.b", 4, "metadata.namespace", "not the name of a namespace"),
        ("\nspec:", "\nspecs: 1\nspec:", 5, "specs", "did you mean spec?"),
        ("      hold: 1h", "      hold: 1h\n      hold: 2h", 16, "spec.stages[0].hold", "twice"),
        ("name: all", "name: few", 12, "spec.stages", "found twice: few"),
        ("deployment: checkout-canary", "deployment: checkout", 6, "spec.workload", "two different Deployments"),
    ],
)
def test_a_mistake_is_said_with_its_line_its_field_and_a_way_out(check, before, after, line, field, said):
    result = check(GOOD.replace(before, after, 1))
    assert result.exit_code == 1
    assert (line, field, False) in result.found
    assert said in result.said


def test_every_problem_is_told_at_once(check):
    text = (
        GOOD.replace('weight: "0.5%"', "weight: 5").replace("v1alpha1", "v1").replace("service: edge", "servise: edge")
    )
    assert {field for _, field, _ in check(text).found} >= {
        "apiVersion",
        "spec.stages[0].weight",
        "spec.traffic.nginx.servise",
    }


def test_a_weight_the_router_cannot_express_comes_with_the_nearest_it_can(check):
    ingress = GOOD.replace("nginx: {service: edge}", "ingressNginx: {ingress: checkout}")
    result = check(ingress)
    assert result.found == [(14, "spec.stages[0].weight", False)]
    assert "0.5% is no whole per cent" in result.said
    assert "choose 1%" in result.said
    assert "choose 2%" in check(ingress.replace("0.5%", "2.5%")).said
    assert (
        check(ingress.replace("{ingress: checkout}", "{ingress: checkout, controllerVersion: 1.12.1}")).exit_code == 0
    )


ROUTERS = {
    "gatewayAPI": "{httpRoute: checkout}",
    "istio": "{virtualService: checkout}",
    "traefik": "{traefikService: checkout}",
    "virtualServer": "{virtualServer: checkout}",
    "contour": "{httpProxy: checkout}",
    "envoy": "{service: edge}",
    "nginx": "{service: edge}",
    "ingressNginx": "{ingress: checkout, controllerVersion: 1.12.1}",
    "service": "{service: checkout-all, replicas: 200}",
}


@pytest.mark.parametrize("router", ROUTERS)
def test_objects_that_only_the_cluster_has_are_no_problem(check, router):
    weight = "5%" if router == "virtualServer" else "0.5%"
    text = GOOD.replace("nginx: {service: edge}", f"{router}: {ROUTERS[router]}").replace("0.5%", weight)
    assert check(text).data["problems"] == []


@pytest.mark.parametrize(
    ("router", "extra", "field", "said"),
    [
        ("virtualServer", "", "spec.stages[0].weight", "0.5%"),
        ("service", "replicas 3", "spec.stages[0].weight", "3 pods"),
        ("service", "sticky", "spec.traffic.sticky", "looks at no request"),
        ("istio", "sticky", "spec.traffic.sticky", ""),
        ("contour", "cohort", "spec.stages[0].cohort", ""),
        ("contour", "mirror", "spec.stages[0].mirror", "cannot copy requests"),
    ],
)
def test_what_a_router_cannot_do_is_said_at_its_place(check, router, extra, field, said):
    text = GOOD.replace("nginx: {service: edge}", f"{router}: {ROUTERS[router]}")
    if extra == "sticky":
        text = text.replace(ROUTERS[router], f"{ROUTERS[router]}\n    sticky: {{header: X-Tenant-ID}}")
    elif extra == "cohort":
        text = text.replace("      hold: 1h\n", "      hold: 1h\n      cohort: {header: X-Cohort, values: [qa]}\n", 1)
    elif extra == "mirror":
        text = text.replace('weight: "0.5%"\n', 'weight: "0%"\n      mirror: "5%"\n')
    else:
        text = text.replace("replicas: 200", "replicas: 3")
    result = check(text)
    assert result.exit_code == 1
    assert field in [place for _, place, _ in result.found], result.data["problems"]
    assert said in result.said


@pytest.mark.parametrize(
    ("query", "said", "code"),
    [
        ('sum(rate(x{pod=~"$pods"}[5m])', 'opens "("', 1),
        ('sum(rate(x{pod=~"$pods"}]5m])', '"]" too many', 1),
        ("x{pod=~'$pods}", "does not close", 1),
        ('x{pod=~"$pod"}', "did you mean $pods?", 0),
        ("sum(x)", "does not tell the versions apart", 0),
        ("label_replace(x{pod=~\"${pods}\", a=\")\\\"\"}, 'a', '$1', 'b', '(.*)')", "", 0),
    ],
)
def test_queries_of_ones_own_are_looked_at_as_far_as_that_goes(check, query, said, code):
    rule = json.dumps({"name": "own", "query": query, "above": "1"})
    result = check(GOOD.replace('{name: errors, preset: error-rate, above: "1%", for: 5m}', rule))
    assert result.exit_code == code
    assert said in result.said
    assert bool(result.found) == bool(said)
    assert check(
        GOOD.replace('{name: errors, preset: error-rate, above: "1%", for: 5m}', rule), args=["--strict"]
    ).exit_code == (1 if said else 0)


def test_a_rule_that_can_never_have_lasted_long_enough_is_a_warning(check):
    result = check(GOOD.replace("for: 5m", "for: 10h"))
    assert (result.exit_code, result.found) == (0, [(18, "spec.haltRules[0].for", True)])


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: [1\nb: }", 2), ("just words", 1), ("a: 2026-13-45", 1), ("a: \x00", 1), ("[" * 3000, 1), ("? [a]\n: b", 1)],
)
def test_what_is_no_yaml_is_a_problem_with_a_line_and_never_a_traceback(check, text, line):
    result = check(text)
    assert result.exit_code == 1
    assert [found[0] for found in result.found] == [line]


def test_a_list_and_several_documents_are_taken_apart(check):
    other = GOOD.replace("checkout", "cart")
    listed = {"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(GOOD), yaml.safe_load(other)]}
    result = check(yaml.safe_dump(listed) + "---\n---\napiVersion: v1\nkind: Secret\n")
    assert result.exit_code == 0
    assert [entry["name"] for entry in result.data["rollouts"]] == ["checkout", "cart"]
    assert "passed over" not in result.stdout


def test_two_rollouts_over_one_deployment_fight_in_one_file_and_may_be_alternatives_in_two(check):
    other = GOOD.replace("name: checkout, namespace", "name: cart, namespace")
    together = check(f"{GOOD}---\n{other}")
    assert together.exit_code == 1
    assert "two cannot move the same one" in together.said
    apart = check(GOOD, other)
    assert apart.exit_code == 0
    assert all(warning for _, _, warning in apart.found)


def test_a_file_that_is_not_there_or_holds_no_rollout_is_a_usage_error(world, tmp_path):
    (tmp_path / "other.yaml").write_text("kind: Secret\n", encoding="utf-8")
    missing = world.run("validate", str(tmp_path / "missing.yaml"))
    assert (missing.exit_code, "cannot be read" in missing.stderr) == (2, True)
    nothing = world.run("validate", str(tmp_path / "other.yaml"))
    assert (nothing.exit_code, "there is no CanaryRollout in" in nothing.stderr) == (2, True)


def test_text_of_a_file_does_not_drive_the_terminal(world):
    result = world.run("validate", "-", stdin=GOOD.replace('"0.5%"', '"\\e[31m"'))
    assert "\x1b" not in result.stdout


RULE = '{name: errors, preset: error-rate, above: "1%", for: 5m}'
SET = """\
---
apiVersion: canaryrollout.dev/v1alpha1
kind: HaltRuleSet
metadata: {name: shared, namespace: shop}
spec:
  variables: [{name: limit}]
  haltRules:
    - {name: slow, preset: latency-p99, above: "${limit}"}
"""


@pytest.mark.parametrize(
    ("rule", "field", "said"),
    [
        (
            '{name: x, preset: latency-p42, above: "1"}',
            "preset",
            "there is no preset latency-p42: did you mean latency-p",
        ),
        ('{name: x, preset: error-rate, server: far, above: "1"}', "server", "there is no far in metrics.servers"),
        ('{name: x, preset: error-rate, above: "1", aboveRatio: "2"}', "", "names exactly one of above"),
        ("{name: x, preset: error-rate}", "", "found none"),
    ],
)
def test_halt_rules_are_looked_at_wherever_they_stand(check, rule, field, said):
    top = check(GOOD.replace(RULE, rule))
    assert (top.exit_code, said in top.said) == (1, True)
    assert [place for _, place, _ in top.found] == [f"spec.haltRules[0]{'.' if field else ''}{field}"]
    of_stage = check(GOOD.replace("hold: 1h\n", f"hold: 1h\n      haltRules:\n      - {rule}\n", 1))
    assert [place for _, place, _ in of_stage.found] == [f"spec.stages[0].haltRules[0]{'.' if field else ''}{field}"]


def test_entry_and_exit_gates_are_looked_at(check):
    for gates in ("entry", "exit"):
        gate = f'      {gates}:\n      - {{preset: eror-rate, max: "1%"}}\n'
        result = check(GOOD.replace("      hold: 1h\n", f"      hold: 1h\n{gate}", 1))
        assert [place for _, place, _ in result.found] == [f"spec.stages[0].{gates}[0].preset"]


def test_a_rule_that_is_switched_off_and_that_nobody_has_is_said(check):
    typo = "    - {name: eror-rate, enabled: false}\n    - {name: cpu, enabled: false}\n"
    result = check(GOOD + typo)
    assert result.found == [(19, "spec.haltRules[1].name", True)]
    assert "did you mean error-rate?" in result.said


def test_credentials_in_plain_sight_are_refused(check):
    access = "access: {headers: [{name: authorization, value: Bearer abc}, {name: X-Scope-OrgID, value: shop}]}"
    result = check(GOOD.replace('monitoring:9090"}', f'monitoring:9090", {access}}}'))
    assert result.found == [(11, "spec.metrics.access.headers[0].value", False)]
    assert "secretRef" in result.said
    assert "abc" not in result.said


@pytest.mark.parametrize("router", ["nginx", "envoy"])
def test_a_header_that_frames_a_message_is_not_given_to_the_version(check, router):
    lines = "    requestHeaders: {version: Host}\n    responseHeaders: {cohort: Content-Length}\n"
    result = check(GOOD.replace("    nginx: {service: edge}\n", f"    {router}: {{service: edge}}\n{lines}"))
    assert result.found == [
        (11, "spec.traffic.requestHeaders.version", False),
        (12, "spec.traffic.responseHeaders.cohort", False),
    ]
    assert "choose another" in result.said


STICKY = "    nginx: {service: edge}\n    sticky: {header: X-Tenant-ID}\n"
COUNTED = 'monitoring:9090", source: agent'


@pytest.mark.parametrize(
    ("traffic", "metrics", "said"),
    [
        (STICKY, 'monitoring:9090"', "source app does not count by tenant (metrics.source: agent does)"),
        (STICKY, COUNTED + ", history: 4m", "metrics.history 4m leaves the tenants less than 5m of past on stable"),
        (STICKY.replace("nginx", "envoy"), COUNTED, "envoy does not count by tenant"),
        (STICKY, COUNTED, ""),
    ],
)
def test_a_sticky_rollout_whose_tenants_nobody_counts_is_warned_of(check, traffic, metrics, said):
    text = GOOD.replace("    nginx: {service: edge}\n", traffic).replace('monitoring:9090"', metrics)
    result = check(text)
    assert result.exit_code == 0
    assert result.found == ([(11, "spec.traffic.sticky", True)] if said else [])
    assert said in result.said
    if said:
        assert "pauses instead of rolling back" in result.said
        meant = text.replace("  stages:", "  analysis: {actions: {errors: Pause}}\n  stages:")
        assert check(meant).found == []
        assert check(text, args=["--strict"]).exit_code == 1


def test_the_least_past_of_tenants_is_that_of_the_operator():
    from canary_rollout.controller.comparing import FEWEST_OF_TENANTS
    from canary_rollout.controller.running import HISTORY_STEP
    from canary_rollout.model.metrics import LEAST_OF_TENANTS

    assert LEAST_OF_TENANTS == FEWEST_OF_TENANTS * HISTORY_STEP


def test_a_source_of_ones_own_that_no_set_has_is_said(check):
    result = check(GOOD.replace('monitoring:9090"}', 'monitoring:9090", source: custom/exporter}'))
    assert result.found == [(11, "spec.metrics.source", True)]


def test_istio_says_which_field_lets_it_copy_requests(check):
    text = GOOD.replace("nginx: {service: edge}", "istio: {virtualService: checkout}")
    copies = '    - {name: copies, weight: "0%", mirror: "10%", hold: 5m}\n    - name: few\n'
    result = check(text.replace("    - name: few\n", copies))
    assert "set traffic.istio.mirror to true" in result.said
    assert (
        check(
            text.replace(
                "istio: {virtualService: checkout}", "istio: {virtualService: checkout, mirror: true}"
            ).replace("    - name: few\n", copies)
        ).found
        == []
    )


def test_presets_of_ones_own_are_known(check, tmp_path):
    rule = '{name: x, preset: open-tills, above: "1", minRequests: 0}'
    assert check(GOOD.replace(RULE, rule)).exit_code == 1
    own = tmp_path / "own.yaml"
    own.write_text("name: tills\nmeasures: {open-tills: {gauge: {series: tills_open}}}\n", encoding="utf-8")
    assert check(GOOD.replace(RULE, rule), args=["--presets", str(own)]).exit_code == 0


def test_presets_of_a_config_map_are_known_if_it_is_among_the_files(check):
    rule = '{name: x, preset: open-tills, above: "1", minRequests: 0}'
    text = GOOD.replace(RULE, rule).replace("metrics: {", "metrics: {presets: [tills], ")
    alone = check(text)
    assert (alone.exit_code, "pass those of metrics.presets with --presets" in alone.said) == (0, True)
    config_map = """---
apiVersion: v1
kind: ConfigMap
metadata: {name: tills, namespace: shop}
data:
  tills.yaml: "name: tills\\nmeasures: {open-tills: {gauge: {series: tills_open}}}"
"""
    assert check(text + config_map).data["problems"] == []


def test_rule_sets_of_the_same_files_are_taken_in_and_others_are_named(check):
    refer = '  haltRuleSets:\n  - {name: shared, variables: {limit: "2"}}\n  haltRules:'
    text = GOOD.replace("  haltRules:", refer)
    alone = check(text)
    assert (alone.exit_code, "HaltRuleSet shared is not among these files" in alone.said) == (0, True)
    assert check(text + SET).data["problems"] == []
    missing = check(text.replace(', variables: {limit: "2"}', "") + SET)
    assert (missing.exit_code, "variable limit has no value" in missing.said) == (1, True)


def test_a_rule_set_is_looked_at_by_itself(check):
    result = check(SET.replace("latency-p99", "latency-p98").replace("name: slow", "name: Slow"))
    assert result.exit_code == 1
    assert (7, "spec.haltRules[0].name", False) in [(line - 1, place, warning) for line, place, warning in result.found]
    assert check(SET).exit_code == 0
