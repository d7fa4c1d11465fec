"""``cohort``: who is in, stage by stage, by the same hash as the data plane."""

import json

import pytest
import yaml

from canary_rollout.traffic.nginx.hashing import bucket as nginx_bucket
from canary_rollout.traffic.nginx.hashing import predicted_canary, salt_of

TENANTS = [f"tenant-{number}" for number in range(400)]
STICKY = {"header": "X-Tenant-ID", "fallback": "clientIP"}


@pytest.fixture
def shop(world, make):
    """A rollout that keeps tenants on a version; ``put`` replaces its sticky part or stages."""

    def put(sticky=STICKY, status=make["progressing"], **spec):
        traffic = {"nginx": {"service": "edge"}} | ({"sticky": sticky} if sticky else {})
        world.put(make["rollout"](status=status() if status else None, traffic=traffic, **spec))
        return world

    world.put_sticky = put
    return put()


@pytest.fixture
def everybody(tmp_path):
    file = tmp_path / "tenants.txt"
    file.write_text("# all of them\n\n" + "\n".join(TENANTS) + "\n", encoding="utf-8")
    return str(file)


def data(world, *words):
    result = world.run("cohort", *words, "-o", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_stages_tenants_are_those_the_data_plane_will_take(shop, make, everybody):
    names = shop.run("cohort", "checkout", "--stage", "friendly", "--tenants-file", everybody, "--names").stdout.split()
    salt = salt_of("shop", "checkout", make["revision"])
    assert names == [tenant for tenant in TENANTS if predicted_canary(salt, tenant, 500)]
    assert 5 <= len(names) <= 40


def test_nobody_leaves_as_the_weight_rises_and_everybody_is_in_at_the_end(shop, everybody):
    found = data(shop, "checkout", "--tenants-file", everybody)
    counts = [stage["tenants"] for stage in found["stages"]]
    assert counts == sorted(counts)
    assert counts[-1] == 400
    assert [stage["left"] for stage in found["stages"]] == [[]] * 4
    assert sum(stage["joined"] for stage in found["stages"]) == 400
    names = [stage["name"] for stage in found["stages"]]
    assert all(tenant["stages"] == names[names.index(tenant["joins"]) :] for tenant in found["tenants"])


def test_the_table_says_share_and_place(shop, make, everybody):
    result = shop.run("cohort", "checkout", "--stage", "friendly", "--tenants-file", everybody)
    text = make["words"](result.stdout)
    assert f"shop/checkout, revision {make['revision']}, tenants by X-Tenant-ID" in text
    assert "> friendly 5%" in text
    assert "ga 100% 400 100.00%" in text
    assert "internal-test: on top come the requests of its cohort, told by X-Cohort" in result.stderr


def test_a_tenant_keeps_its_version_only_within_one_revision(shop, everybody):
    ours = data(shop, "checkout", "--tenants-file", everybody)
    other = data(shop, "checkout", "--revision", "other", "--tenants-file", everybody)
    assert ours["tenants"] != other["tenants"]


def test_before_a_rollout_the_canarys_own_revision_counts(shop, make):
    shop.put_sticky(status=None)
    idle = data(shop, "checkout", "a")
    assert idle["revision"] not in {"", make["revision"]}


def test_allowed_tenants_are_in_from_the_first_stage_and_denied_ones_only_at_the_end(shop, everybody):
    shop.put_sticky({**STICKY, "allow": ["tenant-1", "new"], "deny": ["tenant-2"]})
    found = {tenant["name"]: tenant for tenant in data(shop, "checkout", "new", "--tenants-file", everybody)["tenants"]}
    for name in ("new", "tenant-1"):
        assert (found[name]["joins"], found[name]["why"]) == ("internal-test", "allow")
    assert (found["tenant-2"]["stages"], found["tenant-2"]["why"]) == (["ga"], "deny")


def test_a_cohort_told_by_the_same_header_is_counted_and_its_members_may_leave_again(shop, make):
    stages = [
        {"name": "few", "weight": "0.01%", "hold": "1h", "cohort": {"header": "x-tenant-id", "prefixes": ["ac"]}},
        {"name": "more", "weight": "0.02%", "hold": "1h"},
        {"name": "all", "weight": "100%", "hold": "1h"},
    ]
    shop.put_sticky(stages=stages)
    found = data(shop, "checkout", "acme", "globex")
    assert (found["tenants"][0]["stages"], found["tenants"][0]["why"]) == (["few", "all"], "cohort")
    assert found["stages"][1]["left"] == ["acme"]
    assert "more: acme would leave the canary" in shop.run("cohort", "checkout", "acme").stderr


def test_envoy_orders_tenants_by_its_own_hash(shop, world, make, everybody):
    from canary_rollout.traffic.envoy.hashing import address_bucket, bucket

    traffic = {"envoy": {"service": "edge"}, "sticky": STICKY}
    world.put(make["rollout"](status=make["progressing"](), traffic=traffic))
    salt = salt_of("shop", "checkout", make["revision"])
    found = data(world, "checkout", "--tenants-file", everybody)["tenants"]
    assert [tenant["position"] for tenant in found] == [bucket(salt, f"t:{name}") for name in TENANTS]
    traffic = {"envoy": {"service": "edge", "trustedProxies": ["10.0.0.0/8"]}, "sticky": {"clientIP": True}}
    world.put(make["rollout"](status=make["progressing"](), traffic=traffic))
    (found,) = data(world, "checkout", "192.0.2.7")["tenants"]
    assert found["position"] == address_bucket("192.0.2.7")


def test_addresses_are_the_tenants_where_the_spec_says_so(shop, world, make):
    world.put(
        make["rollout"](
            status=make["progressing"](), traffic={"nginx": {"service": "edge"}, "sticky": {"clientIP": True}}
        )
    )
    (found,) = data(world, "checkout", "192.0.2.7")["tenants"]
    assert found["position"] == nginx_bucket(salt_of("shop", "checkout", make["revision"]), "192.0.2.7")


def test_few_heavy_tenants_show_in_the_share_of_requests(shop, tmp_path):
    (tmp_path / "t.csv").write_text("a,900\nb,50\nc, 50\n", encoding="utf-8")
    stages = data(shop, "checkout", "--tenants-file", str(tmp_path / "t.csv"))["stages"]
    assert stages[-1]["requestShare"] == 1.0
    assert all(0 <= stage["requestShare"] <= 1 for stage in stages)


def test_a_file_needs_no_cluster_but_a_revision(shop, make, tmp_path, everybody):
    file = tmp_path / "rollout.yaml"
    file.write_text(yaml.safe_dump(shop.rollout()), encoding="utf-8")
    there = data(shop, "checkout", "--tenants-file", everybody)
    shop.targets.clear()
    assert data(shop, "-f", str(file), "--revision", make["revision"], "--tenants-file", everybody) == there
    assert shop.targets == []
    result = shop.run("cohort", "-f", str(file), "a")
    assert (result.exit_code, "--revision" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("traffic", "said"),
    [
        ({"nginx": {"service": "edge"}}, "decides every request by itself"),
        (
            {"ingressNginx": {"ingress": "checkout"}, "sticky": {"cookie": "tenant"}},
            "ingressNginx keeps tenants by means of its own, or not at all",
        ),
    ],
)
def test_where_no_tenant_belongs_to_a_stage_that_is_said(world, make, traffic, said):
    world.put(make["rollout"](status=make["progressing"](), traffic=traffic))
    result = world.run("cohort", "checkout", "a")
    assert (result.exit_code, said in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["checkout", "--stage", "nope"], "there is no stage nope: there are internal-test, friendly"),
        ([], "say which rollout"),
        (["checkout", "--tenants-file", "missing.txt"], "missing.txt cannot be read"),
    ],
)
def test_a_wrong_command_line_says_what_to_write(shop, words, said):
    result = shop.run("cohort", *words)
    assert (result.exit_code, said in result.stderr) == (2, True)


def test_a_count_that_is_none_is_refused_with_its_line(shop, tmp_path):
    (tmp_path / "t.csv").write_text("a,1\nb,many\n", encoding="utf-8")
    result = shop.run("cohort", "checkout", "--tenants-file", str(tmp_path / "t.csv"))
    assert (result.exit_code, "t.csv:2: 'many' is no number" in result.stderr) == (2, True)
