import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary_rollout.local.errors import ContainerConfigError
from canary_rollout.local.podenv import (
    EnvironmentBuilder,
    PathRewriter,
    expand,
    field_value,
    parse_quantity,
    volume_variable,
)

POD = {
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "uid": "u-1",
        "labels": {"app": "web", "version": "v1"},
        "annotations": {"note": "x"},
    },
    "spec": {"nodeName": "local", "serviceAccountName": "web"},
}


class Source:
    def configmap(self, namespace, name):
        if (namespace, name) != ("shop", "settings"):
            return None
        return {"data": {"COLOUR": "blue"}, "binaryData": {"RAW": base64.b64encode(b"raw").decode()}}

    def secret(self, namespace, name):
        if (namespace, name) != ("shop", "keys"):
            return None
        return {"data": {"TOKEN": base64.b64encode(b"hidden").decode()}}


def build(container, base=None):
    return EnvironmentBuilder(POD, "10.244.1.2", "10.244.0.1", Source()).build({"name": "c", **container}, base or {})


@pytest.mark.parametrize(
    ("text", "value"),
    [("64Mi", 64 * 2**20), ("1Gi", 2**30), ("250m", 0.25), ("2", 2), ("1.5k", 1500), ("10M", 10_000_000)],
)
def test_quantities_are_read_as_kubernetes_writes_them(text, value):
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "Mi", "5x", "-1"])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ContainerConfigError, match="quantity"):
        parse_quantity(text)


def test_variables_are_expanded_and_unknown_ones_stay():
    assert expand("a$(X)b$(Y)c$$(X)", {"X": "1"}) == "a1b$(Y)c$(X)"


@given(st.text(alphabet=st.characters(exclude_characters="$"), max_size=50))
def test_text_without_a_dollar_is_never_changed_by_expansion(text):
    assert expand(text, {"X": "1"}) == text


def test_mount_paths_are_redirected_and_longer_names_are_left_alone():
    rewrite = PathRewriter({"/etc/nginx": "/host/a", "/etc/nginx/conf.d": "/host/b", "/data/": "/host/c"})
    assert rewrite("/etc/nginx/nginx.conf") == "/host/a/nginx.conf"
    assert rewrite("--conf=/etc/nginx/conf.d/x:/data") == "--conf=/host/b/x:/host/c"
    assert rewrite("/etc/nginx-extra /other/etc/nginx /etc/nginx") == "/etc/nginx-extra /other/etc/nginx /host/a"
    assert rewrite("/database") == "/database"


def test_without_mounts_nothing_is_rewritten():
    assert PathRewriter({})("/etc/nginx") == "/etc/nginx"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web-1"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['version']", "v1"),
        ("metadata.annotations['note']", "x"),
        ("metadata.labels", 'app="web"\nversion="v1"'),
        ("status.podIP", "10.244.1.2"),
        ("status.hostIP", "10.244.0.1"),
        ("spec.serviceAccountName", "web"),
        ("spec.nodeName", "local"),
    ],
)
def test_field_references_are_resolved(path, value):
    assert field_value(POD, path, "10.244.1.2", "10.244.0.1") == value


def test_an_unknown_field_reference_is_refused():
    with pytest.raises(ContainerConfigError, match=r"spec\.nope"):
        field_value(POD, "spec.nope", "", "")


def test_env_overrides_env_from_which_overrides_the_base():
    environment = build(
        {
            "envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "S_", "secretRef": {"name": "keys"}}],
            "env": [
                {"name": "COLOUR", "value": "red"},
                {"name": "BOTH", "value": "$(COLOUR)-$(S_TOKEN)"},
                {"name": "FROM_KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "RAW"}}},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "EMPTY"},
            ],
        },
        {"COLOUR": "base", "PATH": "/bin"},
    )
    assert environment == {
        "COLOUR": "red", "RAW": "raw", "S_TOKEN": "hidden", "BOTH": "red-hidden", "FROM_KEY": "raw", "POD": "web-1",
        "PATH": "/bin", "EMPTY": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"envFrom": [{"configMapRef": {"name": "gone"}}]}, 'configmap "gone" not found'),
        (
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "nope"}}}]},
            "env X: no key 'nope' in secret keys",
        ),
        ({"env": [{"name": "X", "valueFrom": {"fileKeyRef": {}}}]}, "not supported"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(container, message):
    with pytest.raises(ContainerConfigError, match=message):
        build(container)


def test_optional_references_may_lead_nowhere():
    environment = build(
        {
            "envFrom": [{"secretRef": {"name": "gone", "optional": True}}],
            "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "k", "optional": True}}}],
        }
    )
    assert environment == {}


def test_resource_fields_are_rounded_up_to_the_divisor():
    limits = {"resources": {"limits": {"memory": "100Mi", "cpu": "1500m"}}}
    references = [
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    ]
    assert build({**limits, "env": references}) == {"MEM": "100", "CPU": "2"}


def test_volume_variables_are_upper_case_words():
    assert volume_variable("njs-state.1") == "VOLUME_NJS_STATE_1"
