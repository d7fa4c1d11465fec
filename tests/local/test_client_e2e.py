"""The client on the real API server."""

import pytest

from canary_rollout.local.client import _Resource
from canary_rollout.local.errors import ApiError, LocalClusterError

pytestmark = pytest.mark.e2e

SETTINGS = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}}


def crd(plural):
    group = "tests.canary-rollout.dev"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"plural": plural, "singular": plural[:-1], "kind": plural[:-1].capitalize()},
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


async def test_objects_are_applied_patched_listed_and_deleted(local_cluster, namespace):
    admin = local_cluster.admin
    await admin.apply(SETTINGS, namespace=namespace)
    changed = await admin.patch("v1", "ConfigMap", "settings", {"data": {"b": "2"}}, namespace=namespace)
    assert changed["data"] == {"a": "1", "b": "2"}
    replaced = [{"op": "replace", "path": "/data/a", "value": "3"}]
    await admin.patch("v1", "ConfigMap", "settings", replaced, namespace=namespace, patch_type="json")
    listed = await admin.list("v1", "ConfigMap", namespace=namespace, field_selector="metadata.name=settings")
    assert [(one["kind"], one["data"]["a"]) for one in listed] == [("ConfigMap", "3")]
    assert await admin.delete("v1", "ConfigMap", "settings", namespace=namespace)
    assert not await admin.delete("v1", "ConfigMap", "settings", namespace=namespace)
    assert await admin.find("v1", "ConfigMap", "settings", namespace=namespace) is None
    with pytest.raises(ApiError, match='404 NotFound: configmaps "settings" not found'):
        await admin.get("v1", "ConfigMap", "settings", namespace=namespace)


async def test_an_apply_without_force_conflicts_with_another_manager(local_cluster, namespace):
    admin = local_cluster.admin
    await admin.apply(SETTINGS, namespace=namespace, field_manager="one")
    other = {**SETTINGS, "data": {"a": "other"}}
    with pytest.raises(ApiError) as refused:
        await admin.apply(other, namespace=namespace, field_manager="two", force=False)
    assert refused.value.status == 409
    assert (await admin.apply(other, namespace=namespace, field_manager="two"))["data"]["a"] == "other"


async def test_a_custom_resource_can_be_applied_right_after_its_definition(local_cluster, namespace):
    admin = local_cluster.admin
    for plural in ("apples", "pears", "plums"):
        await admin.apply(crd(plural))
        fruit = {
            "apiVersion": "tests.canary-rollout.dev/v1",
            "kind": plural[:-1].capitalize(),
            "metadata": {"name": "one"},
        }
        assert (await admin.apply(fruit, namespace=namespace))["metadata"]["uid"]
        await admin.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"{plural}.tests.canary-rollout.dev")


async def test_waiting_in_vain_shows_what_was_seen_last(local_cluster, namespace):
    with pytest.raises(LocalClusterError, match=r"did not become green within 0.2 s; it never existed"):
        await local_cluster.admin.wait_for(
            "v1", "Pod", "none", lambda _: True, namespace=namespace, what="green", timeout=0.2
        )


async def test_a_namespaced_object_needs_a_namespace(local_cluster):
    with pytest.raises(LocalClusterError, match="give a namespace"):
        await local_cluster.admin.get("v1", "Pod", "x")


async def test_a_watch_from_a_version_shows_only_what_came_after_it(local_cluster, namespace):
    admin = local_cluster.admin
    await admin.apply(SETTINGS, namespace=namespace)
    _, version = await admin.list_with_version("v1", "ConfigMap", namespace=namespace)
    await admin.apply({**SETTINGS, "data": {"a": "2"}}, namespace=namespace)
    async for event in admin.stream("v1", "ConfigMap", namespace=namespace, resource_version=version):
        if event.object["metadata"]["name"] == "settings":
            assert (event.type, event.object["data"]) == ("MODIFIED", {"a": "2"})
            break


async def test_an_unknown_token_is_refused_and_a_service_account_has_only_its_own_rights(local_cluster, namespace):
    async with local_cluster.client("nobody") as nobody:
        with pytest.raises(ApiError, match="401"):
            await nobody.list("v1", "Pod", namespace=namespace)
    token = await local_cluster.admin.service_account_token(namespace, "default")
    async with local_cluster.client(token) as account:
        with pytest.raises(ApiError, match=f"403 .*system:serviceaccount:{namespace}:default"):
            await account.list("v1", "Pod", namespace=namespace)
    path = await local_cluster.kubeconfig_for(namespace, "default")
    assert path.stat().st_mode & 0o777 == 0o600


async def test_kubectl_failures_are_errors_with_its_words(local_cluster):
    with pytest.raises(LocalClusterError, match="the server doesn't have a resource type"):
        await local_cluster.kubectl("get", "unicorns")
    assert "unicorns" in await local_cluster.kubectl("get", "unicorns", check=False)


async def test_a_watch_of_a_kind_that_is_gone_says_so_as_any_other_call(local_cluster):
    """A deleted CRD: the API server answers with plain text then."""
    api = local_cluster.admin
    api._resources["gone.example.com/v1", "Gone"] = _Resource("gones", namespaced=True)
    with pytest.raises(ApiError, match="404 page not found"):
        async for _ in api.stream("gone.example.com/v1", "Gone", namespace="default"):
            pass
