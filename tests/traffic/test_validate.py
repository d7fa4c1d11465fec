"""No hostile string reaches nginx, JSON for nginx, or an annotation, by any field (design invariant 12)."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from let_through import let_through

from canary_rollout.model.routers import DirectPaths
from canary_rollout.model.routing import Pin, RequestHeaders
from canary_rollout.model.spec import Cohort, ResponseHeaders, Sticky
from canary_rollout.traffic.latch import LATCH, from_object
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.nginx.document import DocumentError, _parsed_before, parse, parse_edited
from canary_rollout.traffic.nginx.render import ProxyConfig, render_config
from canary_rollout.traffic.nginx.validate import UnsafeValueError
from canary_rollout.traffic.port import RouterError

HOSTILE = [
    "a\n",
    "a\r\nX: y",
    "a;",
    "a; return 200 pwned",
    "a}",
    "{a",
    'a"',
    "a'",
    "a\\",
    "$host",
    "${http_authorization}",
    "a$",
    "~^.*",
    "~*x",
    "*",
    "a b",
    "a\tb",
    "a\0b",
    "#a",
    "a#b",
    "../../etc/passwd",
    "unix:/var/run/docker.sock",
    "169.254.169.254",
    "http://127.0.0.1/",
    "a,b",
    "ü",
    "а",  # noqa: RUF001 - a Cyrillic a, on purpose
    "a" * 300,
    "{{ 7 * 7 }}",
    "{% raw %}",
    "<script>",
    "a|b",
    "%0a",
    "`id`",
    "$(id)",
    True,
    1,
    None,
    ["a"],
]
NAMES = [value for value in HOSTILE if value != "169.254.169.254"]  # which is a legal object name

GOOD = ProxyConfig(
    namespace="shop",
    rollout="checkout",
    stable_upstream=("10.96.0.1", 80),
    canary_upstream=("10.96.0.2", 80),
    sticky=Sticky(header="X-Tenant-ID"),
    headers=ResponseHeaders(),
)


def unchecked(model, **values):
    """As it would look had the model let everything through."""
    return model.model_construct(**{**dict.fromkeys(type(model).model_fields), **dict(model), **values})


def replaced(field, value):
    match field:
        case "sticky.header":
            return dataclasses.replace(GOOD, sticky=unchecked(Sticky(header="X"), header=value, cookie="c"))
        case "sticky.cookie":
            return dataclasses.replace(GOOD, sticky=unchecked(Sticky(cookie="x"), header=None, cookie=value))
        case "headers.cohort" | "headers.version":
            name = field.partition(".")[2]
            return dataclasses.replace(GOOD, headers=unchecked(ResponseHeaders(), **{name: value}))
        case "stable_upstream" | "canary_upstream":
            return dataclasses.replace(GOOD, **{field: (value, 80)})
        case "stable_port":
            return dataclasses.replace(GOOD, stable_upstream=("10.96.0.1", value))
    return dataclasses.replace(GOOD, **{field: value})


@pytest.mark.parametrize(
    "field", ["namespace", "rollout", "sticky.cookie", "headers.cohort", "headers.version", "stable_upstream"]
)
def test_nginx_conf_is_not_rendered_with_a_hostile_value(field):
    assert let_through(NAMES, lambda value: render_config(replaced(field, value)), RouterError) == []


@pytest.mark.parametrize("value", [v for v in NAMES if v is not None], ids=repr)
def test_nginx_conf_is_not_rendered_with_a_hostile_tenant_header(value):
    with pytest.raises(UnsafeValueError, match=r"sticky\.header"):
        render_config(replaced("sticky.header", value))


@pytest.mark.parametrize("value", ["169.254.169.254", "0.0.0.0", "::", "fe80::1%eth0", "224.0.0.1", "localhost", ""])
def test_nginx_conf_is_not_rendered_with_an_address_that_no_service_has(value):
    with pytest.raises(UnsafeValueError, match="Service"):
        render_config(replaced("stable_upstream", value))


@pytest.mark.parametrize("value", [0, -1, 65_536, "80", True, 8.0, None])
def test_nginx_conf_is_not_rendered_with_a_port_that_is_none(value):
    with pytest.raises(UnsafeValueError, match="port"):
        render_config(replaced("stable_port", value))


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Host", "Connection", "Set-Cookie", "Upgrade"])
def test_headers_that_frame_or_route_a_message_are_not_ours_to_set(name):
    with pytest.raises(UnsafeValueError, match="meaning of its own"):
        render_config(replaced("headers.version", name))


def test_one_header_cannot_tell_two_things():
    headers = unchecked(ResponseHeaders(), cohort="X-A", version="x-a")
    with pytest.raises(RouterError, match="twice"):
        render_config(dataclasses.replace(GOOD, headers=headers))


def test_a_cookie_with_a_dash_is_refused_because_nginx_cannot_read_it():
    with pytest.raises(UnsafeValueError, match="cannot read"):
        render_config(replaced("sticky.cookie", "tenant-id"))


def test_ipv6_services_are_written_in_brackets():
    text = render_config(replaced("stable_upstream", "fd00::1"))
    assert "server [fd00::1]:80 max_fails=0;" in text


@pytest.mark.parametrize("value", [v for v in HOSTILE if v != "169.254.169.254"], ids=repr)
def test_cohort_values_and_revisions_refuse_hostile_strings(value):
    with pytest.raises(UnsafeValueError):
        validate.cohort_values("values", [value])
    with pytest.raises(UnsafeValueError):
        validate.revision("revision", value)


def test_cohort_values_that_differ_only_in_case_are_one():
    assert validate.cohort_values("values", ["a", "B", "A"]) == ("a", "B")


def test_the_word_for_those_in_no_cohort_is_reserved():
    with pytest.raises(UnsafeValueError, match="no cohort"):
        validate.cohort_values("values", ["Everyone"])


DOCUMENT = {
    "schemaVersion": 1,
    "namespace": "shop",
    "rollout": "checkout",
    "sequence": 3,
    "weight": 500,
    "revision": "abc",
    "stableRevision": "def",
    "cohort": {"header": "X-Cohort", "cookie": None, "values": ["internal"]},
    "listen": 8080,
    "staleAfter": 120.0,
    "mode": "auto",
    "config": "0" * 64,
}


ONE_IS_LEGAL = {"schemaVersion", "sequence", "staleAfter"}
NAMES_ARE_LEGAL = {"namespace", "rollout", "revision", "stableRevision"}


@pytest.mark.parametrize("field", sorted(set(DOCUMENT) - {"cohort"}))
def test_the_agent_refuses_a_document_with_a_hostile_value_in_any_field(field):
    values = [
        value
        for value in HOSTILE
        if not (type(value) is int and field in ONE_IS_LEGAL)
        and not (value == "169.254.169.254" and field in NAMES_ARE_LEGAL)
    ]
    assert let_through(values, lambda value: parse(json.dumps({**DOCUMENT, field: value})), DocumentError) == []


@pytest.mark.parametrize("field", ["header", "cookie"])
def test_the_agent_refuses_a_cohort_with_a_hostile_name_or_value(field):
    wrong = [v for v in HOSTILE if v not in ("169.254.169.254", None)]
    cohorts = [{field: value, "values": ["a"]} for value in wrong] + [{field: "X-A", "values": [v]} for v in wrong]
    assert let_through(cohorts, lambda one: parse(json.dumps({**DOCUMENT, "cohort": one})), DocumentError) == []


@given(st.text(max_size=80))
def test_whatever_passes_as_a_value_has_no_character_that_means_something_to_nginx(value):
    for check in (validate.revision, validate.header_name, validate.cookie_name, validate.dns_name):
        try:
            passed = check("field", value)
        except UnsafeValueError:
            continue
        assert not set(passed) & set("\n\r\t\0 ;{}\"'\\$~*#()|`<>%,:/")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_no_json_makes_the_parser_fail_otherwise_than_it_says(value):
    with pytest.raises(DocumentError):
        parse(json.dumps(value))
    if isinstance(value, dict):
        with pytest.raises(DocumentError):
            parse(json.dumps({**DOCUMENT, "cohort": value}))


def test_a_cohort_in_the_document_is_valid():
    assert Cohort.model_validate(DOCUMENT["cohort"]).values == ("internal",)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 40_000, '{"weight": ' + "9" * 5_000 + "}", "null", '"x"'])
@pytest.mark.parametrize("read", [parse, parse_edited])
def test_a_hostile_document_is_unreadable_and_nothing_worse(read, text):
    with pytest.raises(DocumentError):
        read(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"revision": "x", "rule": "r", "message": "m", "at": 1e400}'])
def test_a_mangled_verdict_condemns_still(text):
    latch = from_object({"metadata": {"annotations": {LATCH: text}}})
    assert latch is not None
    assert latch.rule == "unreadable"


# Pins, lists, patterns, regions, paths, networks


NEW_FIELDS = {
    "pin.header": lambda v: {"pin": unchecked(Pin(header="X"), header=v)},
    "pin.canary": lambda v: {"pin": unchecked(Pin(header="X"), canary=v)},
    "pin.stable": lambda v: {"pin": unchecked(Pin(header="X"), stable=v)},
    "sticky.allow": lambda v: {"sticky": unchecked(Sticky(header="X"), allow=(v,), deny=())},
    "sticky.deny": lambda v: {"sticky": unchecked(Sticky(header="X"), allow=(), deny=("ok", v))},
    "told.cohort": lambda v: {"told": unchecked(RequestHeaders(), cohort=v)},
    "told.version": lambda v: {"told": unchecked(RequestHeaders(), version=v)},
    "direct.stable": lambda v: {"direct": unchecked(DirectPaths(allow_from=("10.0.0.1",)), stable=v)},
    "direct.canary": lambda v: {"direct": unchecked(DirectPaths(allow_from=("10.0.0.1",)), canary=v)},
    "direct.allowFrom": lambda v: {"direct": unchecked(DirectPaths(allow_from=("10.0.0.1",)), allow_from=(v,))},
    "trusted": lambda v: {"trusted": (v,)},
}
PLAIN = ("169.254.169.254",)  # a legal tenant, network and pin value


@pytest.mark.parametrize("field", sorted(NEW_FIELDS))
def test_nginx_conf_is_not_rendered_with_a_hostile_value_in_any_of_the_later_fields(field):
    def attempt(value):
        render_config(dataclasses.replace(GOOD, **NEW_FIELDS[field](value)))

    assert let_through([v for v in HOSTILE if v not in PLAIN], attempt, RouterError) == []


@pytest.mark.parametrize(
    "value", ["/", "/a/", "a", "/a b", "/a;", "/a{", "/..", "/a/../b", "/$uri", "/a.b", "//", "/%61"]
)
def test_a_direct_path_is_words_and_nothing_else(value):
    with pytest.raises(UnsafeValueError, match="directPaths"):
        render_config(dataclasses.replace(GOOD, direct=unchecked(DirectPaths(allow_from=("10.0.0.1",)), canary=value)))


def test_a_pin_whose_two_values_are_one_is_refused():
    with pytest.raises(UnsafeValueError, match="both versions"):
        render_config(dataclasses.replace(GOOD, pin=Pin(header="X-Canary", canary="yes", stable="YES")))


def test_two_direct_paths_that_are_one_are_refused():
    direct = DirectPaths(stable="/x", canary="/x", allow_from=("10.0.0.1",))
    with pytest.raises(RouterError, match="both versions"):
        render_config(dataclasses.replace(GOOD, direct=direct))


COHORT_FIELDS = {
    "prefixes": lambda v: {"header": "X-A", "prefixes": [v]},
    "pattern": lambda v: {"header": "X-A", "pattern": v},
    "regions.header": lambda v: {"regions": {"header": v, "weights": [{"value": "eu", "weight": "5%"}]}},
    "regions.value": lambda v: {"regions": {"header": "X-R", "weights": [{"value": v, "weight": "5%"}]}},
    "regions.weight": lambda v: {"regions": {"header": "X-R", "weights": [{"value": "eu", "weight": v}]}},
}
FINE_AS_PATTERN = ("a b", "../../etc/passwd", "169.254.169.254", None)
HOSTILE_COHORTS = [
    (field, value)
    for field in sorted(COHORT_FIELDS)
    for value in HOSTILE
    if not (field == "pattern" and value in FINE_AS_PATTERN)
    and not (field in {"prefixes", "regions.value"} and value == "169.254.169.254")
]


@pytest.mark.parametrize(("field", "value"), HOSTILE_COHORTS, ids=repr)
def test_the_agent_refuses_a_cohort_with_a_hostile_prefix_pattern_or_region(field, value):
    with pytest.raises(DocumentError):
        parse(json.dumps({**DOCUMENT, "cohort": COHORT_FIELDS[field](value)}))


@pytest.mark.parametrize("value", [v for v in HOSTILE if isinstance(v, str) and v not in FINE_AS_PATTERN], ids=repr)
def test_a_pattern_that_was_let_through_is_refused_before_it_is_written(value):
    cohort = unchecked(
        Cohort(header="X-A", values=("a",)), pattern=value, prefixes=(), values=(), cookie=None, regions=None
    )
    with pytest.raises(UnsafeValueError):
        validate.cohort("cohort", cohort)


@pytest.mark.parametrize("word", ["pinned", "Allowed", "denied", "mirror", "direct", "region-eu", "pattern"])
def test_the_names_of_our_own_groups_are_no_cohorts(word):
    for given_ in ({"values": [word]}, {"prefixes": [word]}):
        with pytest.raises(UnsafeValueError, match="group of our own"):
            validate.cohort("cohort", Cohort.model_validate({"header": "X-A", **given_}))


def test_a_later_field_that_says_nothing_is_left_out_so_that_older_agents_agree_on_the_checksum():
    text = json.dumps({**DOCUMENT, "checksum": "x"})
    content = json.loads(parse_edited(text).dump())
    assert set(content) == {*DOCUMENT, "checksum"}
    assert set(content["cohort"]) == {"header", "cookie", "values"}


def test_regions_and_patterns_survive_being_written_and_read():
    cohort = {
        "header": "X-A", "cookie": None, "values": [], "prefixes": ["beta-"], "pattern": "Mozilla*Firefox/1*",
        "regions": {"header": "X-R", "weights": [{"value": "eu", "weight": "0.5%"}, {"value": "us", "weight": "0%"}]},
    }  # fmt: skip
    document = parse_edited(json.dumps({**DOCUMENT, "cohort": cohort}))
    assert parse(document.dump()) == document
    assert [region.weight for region in document.cohort.regions.weights] == [50, 0]


def test_what_people_write_into_a_document_is_not_kept_by_the_operator():
    _parsed_before.cache_clear()
    for number in range(3):
        assert parse_edited(json.dumps({**DOCUMENT, "junk": f"{number}"})).weight == DOCUMENT["weight"]
        with pytest.raises(DocumentError):
            parse(json.dumps({"junk": f"{number}" * 5000}))
    assert _parsed_before.cache_info().currsize == 0
    text = parse_edited(json.dumps(DOCUMENT)).dump()
    assert parse(text) is parse(text)
