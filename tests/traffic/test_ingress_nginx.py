"""The router for the community ingress-nginx controller: what it writes, reads back and takes back."""

import pytest
from ingress_play import P, controlled, ingress, path
from proxies import NAMESPACE

from canary_rollout.kube.port import INGRESSES, SERVICES, ConflictError
from canary_rollout.model.spec import Cohort
from canary_rollout.traffic.ingress_annotations import CANARY, TOTAL, WEIGHT, weight_of
from canary_rollout.traffic.ingress_nginx import IngressNginxRouter
from canary_rollout.traffic.port import Latch, Proof, Rejected, Route

LATCH = Latch("v2", "error-rate", "too many", 1_000_000.0)


@pytest.fixture
async def there():
    return await controlled()


async def test_it_is_found_by_its_name_in_the_spec(there):
    router = there.router()
    assert isinstance(router, IngressNginxRouter)
    assert router.capabilities().proof is Proof.SETTLE
    assert router.problems() == []
    assert router.observe() is None


async def test_it_writes_a_canary_for_the_paths_of_stable_alone_and_leaves_the_users_ingress(there):
    before = there.api.store.peek(INGRESSES, NAMESPACE, "shop")
    await there.route(50)
    assert there.notes() == {
        "canary": "true",
        "canary-weight": "50",
        "canary-weight-total": "10000",
        "affinity-canary-behavior": "legacy",
    }
    spec = there.ours()["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["rules"] == [{"host": "shop.example", "http": {"paths": [path("checkout-canary")]}}]
    assert there.api.store.peek(INGRESSES, NAMESPACE, "shop") == before


async def test_a_weight_counts_once_it_has_settled(there):
    await there.route(50)
    view = there.router().observe()
    assert (view.weight, view.revision, view.confirmed, view.confirmed_at) == (50, "v2", False, None)
    assert "5 s" in view.pending
    there.clock.time += 5
    view = there.router().observe()
    assert (view.confirmed, view.confirmed_at, view.mode) == (True, 1_000_005.0, "canary Ingress")


async def test_repeating_a_route_asks_the_api_nothing_and_does_not_settle_anew(there):
    await there.route(50, latch=LATCH)
    calls = len(there.api.calls)
    there.clock.time += 5
    assert not (await there.route(50, latch=LATCH)).changed
    assert len(there.api.calls) == calls
    assert there.router().observe().confirmed


@pytest.mark.parametrize(
    ("cohort", "written"),
    [
        (
            {"header": "X-Cohort", "values": ["internal"]},
            {"canary-by-header": "X-Cohort", "canary-by-header-value": "internal"},
        ),
        (
            {"header": "X-Cohort", "values": ["internal", "v1.2"]},
            {"canary-by-header": "X-Cohort", "canary-by-header-pattern": "^(?:internal|v1[.]2)$"},
        ),
        ({"cookie": "beta", "values": ["always"]}, {"canary-by-cookie": "beta"}),
    ],
)
async def test_cohorts_are_written_as_the_controller_knows_them_and_read_back(there, cohort, written):
    cohort = Cohort.model_validate(cohort)
    await there.route(50, cohort=cohort)
    assert written.items() <= there.notes().items()
    view = there.router().observe()
    assert (view.cohort.header, view.cohort.cookie, view.cohort.values) == (cohort.header, cohort.cookie, cohort.values)
    await there.route(0, cohort=cohort)
    assert not any(key.startswith("canary-by") for key in there.notes()), "nobody at weight 0"
    assert there.notes()["canary-weight"] == "0"


async def test_a_cookie_cohort_with_values_of_its_own_is_refused_with_the_reason(there):
    there.stages = [
        {"name": "a", "weight": "5%", "hold": "1m", "cohort": {"cookie": "beta", "values": ["yes"]}},
        {"name": "b", "weight": "100%", "hold": "1m"},
    ]
    (problem,) = there.router().problems()
    assert "stage a" in problem
    assert '"always" alone' in problem


@pytest.mark.parametrize("version", [None, "1.6.4", "v1.6.4"])
async def test_without_a_controller_that_honours_the_total_finer_weights_are_refused_and_whole_ones_go_without_it(
    there, version
):
    there.settings = {"ingress": "shop", **({"controllerVersion": version} if version else {})}
    assert there.router().capabilities().step == 100
    problems = there.router().problems()  # of the default stages 0.5 % is the only fine one
    assert len(problems) == 1
    assert "0.5% is no whole per cent" in problems[0]
    assert "50%" in problems[0]
    answer = await there.router().ensure(Route(50, "v2", "v1"), fence=None)
    assert isinstance(answer, Rejected)
    assert there.ours() is None
    await there.route(500)
    assert there.notes()["canary-weight"] == "5"
    assert "canary-weight-total" not in there.notes()
    assert there.router().observe().weight == 500


@pytest.mark.parametrize(
    ("notes", "weight"),
    [
        ({"canary": "true", "canary-weight": "50", "canary-weight-total": "10000"}, 50),
        ({"canary": "true", "canary-weight": "50", "canary-weight-total": "50"}, 5000),  # totals up to 100 are 100
        ({"canary": "true", "canary-weight": "lots"}, 0),
        ({"canary": "true", "canary-weight": "900"}, 10_000),
        ({"canary": "false", "canary-weight": "50"}, 0),
        ({}, 0),
    ],
)
async def test_the_weight_is_read_as_the_controller_reads_it(there, notes, weight):
    foreign = ingress("checkout-canary", annotations={P + key: value for key, value in notes.items()})
    await there.put(INGRESSES, foreign)
    assert there.router().observe().weight == weight


async def test_a_raise_is_fenced_and_a_lowering_is_not(there):
    first = await there.route(50)
    await there.route(100, fence=first.resource_version)
    with pytest.raises(ConflictError):
        await there.route(500, fence=first.resource_version)
    await there.route(0)
    assert there.router().observe().weight == 0


async def test_a_lowering_is_written_although_the_users_ingress_and_the_service_are_gone(there):
    await there.route(5000)
    await there.api.client("user").delete(INGRESSES, NAMESPACE, "shop")
    await there.api.client("user").delete(SERVICES, NAMESPACE, "checkout-canary")
    await there.route(0, latch=LATCH)
    view = there.router().observe()
    assert (view.weight, view.latch) == (0, LATCH)
    assert there.ours()["spec"]["rules"]
    answer = await there.router().ensure(Route(100, "v2", "v1"), fence=view.resource_version)
    assert isinstance(answer, Rejected)


async def test_a_changed_host_of_the_user_makes_the_route_outdated_until_it_is_written_again(there):
    await there.route(50)
    there.clock.time += 5
    await there.put(INGRESSES, ingress(host="new.example"))
    view = there.router().observe()
    assert (view.outdated, view.confirmed) == (True, False)
    await there.route(50)
    assert there.ours()["spec"]["rules"][0]["host"] == "new.example"
    assert not there.router().observe().outdated


async def test_somebody_elses_weight_is_contested_and_taken_back(there):
    await there.route(50)
    there.clock.time += 5
    patch = {"metadata": {"annotations": {P + "canary-weight": "9000"}}}
    await there.api.client("x").merge_patch(INGRESSES, NAMESPACE, "checkout-canary", patch, manager="kubectl-edit")
    view = there.router().observe()
    assert (view.weight, view.contested_by, view.confirmed) == (9000, "kubectl-edit", False)
    await there.route(50)
    view = there.router().observe()
    assert (view.weight, view.contested_by) == (50, "")


async def test_an_annotation_that_somebody_adds_is_taken_back(there):
    await there.route(50)
    patch = {"metadata": {"annotations": {P + "canary-by-header": "X-Me"}}}
    await there.api.client("x").merge_patch(INGRESSES, NAMESPACE, "checkout-canary", patch, manager="kubectl-edit")
    assert there.router().observe().contested_by == "kubectl-edit"
    await there.route(50)
    assert "canary-by-header" not in there.notes()
    assert there.router().observe().contested_by == ""
    calls = len(there.api.calls)
    await there.route(50)
    assert len(there.api.calls) == calls


@pytest.mark.parametrize(
    ("cohort", "pattern"),
    [
        ({"header": "X-Cohort", "values": ["a"], "prefixes": ["beta-"]}, "^(?:a|beta-.*)$"),
        ({"header": "User-Agent", "pattern": "Mozilla*Firefox/*"}, "^(?:Mozilla.*Firefox/.*)$"),
        ({"header": "User-Agent", "pattern": "curl/8.*(x)"}, "^(?:curl/8[.].*[(]x[)])$"),
    ],
)
async def test_prefixes_and_patterns_are_written_for_the_controller_and_known_again(there, cohort, pattern):
    there.stages = [
        {"name": "a", "weight": "5%", "hold": "1m", "cohort": cohort},
        {"name": "b", "weight": "100%", "hold": "1m"},
    ]
    assert there.router().problems() == []
    given = Cohort.model_validate(cohort)
    await there.route(50, cohort=given)
    assert there.notes()["canary-by-header-pattern"] == pattern
    assert there.router().observe().cohort == given


async def test_released_it_is_gone_unless_it_serves(there):
    await there.route(10_000)
    await there.router().release()
    assert there.ours() is not None
    await there.route(0)
    await there.router().release()
    assert there.ours() is None
    await there.router().release()


@pytest.mark.parametrize(
    "value",
    [
        "a\n",
        "a b",
        "a|.*",
        ".*)(",
        "$",
        "a" * 65,
        "^",
        "ü",
        "",
        "a,b",
        '"',
        "'",
        "a;b",
        "\0",
        "(",
        "[",
        "{",
        "*",
        "+",
        "?",
        "\\",
    ],
)
async def test_hostile_cohorts_and_revisions_reach_no_annotation(there, value):
    cohort = Cohort.model_construct(header="X-A", cookie=None, values=("ok", value))
    names = Cohort.model_construct(header=value, cookie=None, values=("ok",))
    cookie = Cohort.model_construct(header=None, cookie=value, values=("always",))
    for bad in (cohort, names, cookie):
        assert isinstance(await there.router().ensure(Route(50, "v2", "v1", bad), fence=None), Rejected)
    if value:
        assert isinstance(await there.router().ensure(Route(50, value, "v1"), fence=None), Rejected)
    assert there.ours() is None


@pytest.mark.parametrize(
    ("weight", "total", "found"),
    [
        ("50", "10000", 50), ("1", "1000000", 1), ("0", "1000000", 0), ("5", None, 500), ("100", "50", 10_000),
        ("20000", "10000", 10_000), ("-1", "10000", 0), ("٣", "10000", 0), ("9" * 5000, "10000", 0), ("5", "9" * 5000, 500),
    ],
)  # fmt: skip
def test_the_weight_that_annotations_say_is_never_0_while_anybody_is_sent_to_the_canary(weight, total, found):
    notes = {CANARY: "true", WEIGHT: weight, **({TOTAL: total} if total is not None else {})}
    assert weight_of(notes) == found
