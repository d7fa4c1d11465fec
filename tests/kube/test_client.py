"""The real client against the fake API server over HTTP."""

import asyncio
import time

import pytest
import yaml
from fake_api import Answer, Drop, FakeApi, FakeServer, Hang

from canary_rollout.kube.client import Client, ConfigError
from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    CONFIG_MAPS,
    LEASES,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)


class Seen:
    """Records what the observer is told."""

    def __init__(self):
        self.calls = []
        self.dates = []

    def call(self, verb, resource, code, seconds):
        assert seconds >= 0
        self.calls.append((verb, resource.plural, code))

    def server_date(self, server, sent, received):
        assert sent <= received
        self.dates.append((server, received))


@pytest.fixture
async def server():
    async with FakeServer(FakeApi()) as server:
        yield server


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
async def client(server, seen, tmp_path):
    client = await Client.from_kubeconfig(server.kubeconfig(tmp_path / "config", namespace="shop"), observer=seen)
    yield client
    await client.close()


def config_map(name="a", **data):
    return {"metadata": {"name": name}, "data": data}


async def test_every_verb_reaches_the_server_with_our_credentials(server, client):
    made = await client.create(CONFIG_MAPS, "shop", config_map(x="1"))
    assert await client.get(CONFIG_MAPS, "shop", "a") == made
    merged = await client.merge_patch(CONFIG_MAPS, "shop", "a", {"data": {"x": "2"}})
    assert merged["data"] == {"x": "2"}
    patched = await client.json_patch(
        CONFIG_MAPS, "shop", "a", [{"op": "replace", "path": "/data/x", "value": "3"}], manager="other"
    )
    assert patched["data"] == {"x": "3"}
    applied = await client.apply(CONFIG_MAPS, "shop", "a", {"data": {"y": "1"}})
    assert applied["data"] == {"x": "3", "y": "1"}
    assert {entry["manager"] for entry in applied["metadata"]["managedFields"]} == {"canary-rollout", "other"}
    await client.delete(CONFIG_MAPS, "shop", "a")
    await client.delete(CONFIG_MAPS, "shop", "a")
    with pytest.raises(NotFoundError, match='configmaps "a" not found'):
        await client.get(CONFIG_MAPS, "shop", "a")
    assert set(server.authorizations) == {"Bearer secret-token"}
    assert client.namespace == "shop"


async def test_a_list_is_paged_and_its_items_know_their_kind(server, client, monkeypatch):
    monkeypatch.setattr("canary_rollout.kube.client.PAGE", 3)
    for n in range(8):
        await client.create(CONFIG_MAPS, "shop", config_map(f"c{n}"))
    await client.create(CONFIG_MAPS, "other", config_map("elsewhere"))
    items, version = await client.list_all(CONFIG_MAPS, "shop")
    assert [item["metadata"]["name"] for item in items] == [f"c{n}" for n in range(8)]
    assert {(item["apiVersion"], item["kind"]) for item in items} == {("v1", "ConfigMap")}
    assert version == str(server.api.store.version)
    assert len([call for call in server.api.calls if call.verb == "list"]) == 3
    everywhere, _ = await client.list_all(CONFIG_MAPS)
    assert len(everywhere) == 9


async def test_a_list_whose_continuation_expired_is_taken_in_one_piece(server, client, monkeypatch):
    monkeypatch.setattr("canary_rollout.kube.client.PAGE", 2)
    for n in range(5):
        await client.create(CONFIG_MAPS, "shop", config_map(f"c{n}"))
    listed = server.api.store.list_objects

    def forget_pages(*args, **kwargs):
        answer = listed(*args, **kwargs)
        server.api.store._pages.clear()
        return answer

    monkeypatch.setattr(server.api.store, "list_objects", forget_pages)
    items, _ = await client.list_all(CONFIG_MAPS, "shop")
    assert [item["metadata"]["name"] for item in items] == [f"c{n}" for n in range(5)]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, InvalidError),
        (401, ForbiddenError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (410, GoneError),
        (415, InvalidError),
        (422, InvalidError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
async def test_every_status_becomes_its_error(server, client, seen, code, error):
    server.api.fault(Answer(code, "told so", "Because", retry_after=3), times=None, verb="get")
    with pytest.raises(error, match=f"get /api/v1/namespaces/shop/configmaps/a: told so .{code} Because") as raised:
        await client.get(CONFIG_MAPS, "shop", "a")
    assert (raised.value.status, raised.value.reason) == (code, "Because")
    if error is UnavailableError:
        assert raised.value.retry_after == 3
    assert seen.calls[-1] == ("get", "configmaps", code)


async def test_a_json_patch_that_came_too_late_is_a_conflict(client):
    made = await client.create(CONFIG_MAPS, "shop", config_map(x="1"))
    await client.merge_patch(CONFIG_MAPS, "shop", "a", {"data": {"x": "2"}})
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": made["metadata"]["resourceVersion"]}
    replace = {"op": "replace", "path": "/data/x", "value": "3"}
    with pytest.raises(ConflictError) as late:
        await client.json_patch(CONFIG_MAPS, "shop", "a", [test, replace])
    assert late.value.status == 422
    with pytest.raises(InvalidError):
        await client.json_patch(CONFIG_MAPS, "shop", "a", [{"op": "remove", "path": "/data/none"}])


async def test_a_validation_failure_is_no_conflict_even_with_a_test(server, client):
    server.api.store.validators[CONFIG_MAPS] = lambda obj: [("data.x", "too big")] if obj.get("data") else []
    await client.create(CONFIG_MAPS, "shop", {"metadata": {"name": "a"}})
    with pytest.raises(InvalidError, match=r"data\.x: too big"):
        await client.json_patch(
            CONFIG_MAPS,
            "shop",
            "a",
            [
                {"op": "test", "path": "/metadata/name", "value": "a"},
                {"op": "add", "path": "/data", "value": {"x": "9"}},
            ],
        )


async def test_a_hanging_server_is_given_up_after_the_time_limit(server, client, seen):
    server.api.fault(Hang(), times=None)
    with pytest.raises(UnavailableError, match="no answer"):
        await client.with_timeout(0.05).get(CONFIG_MAPS, "shop", "a")
    assert seen.calls == [("get", "configmaps", 0)]


async def test_a_connection_of_ones_own_waits_for_no_one_elses_calls(server, client):
    server.api.fault(Hang(), times=None, resource=CONFIG_MAPS)
    every = client._configuration.connection_pool_maxsize
    patient = client.with_timeout(600.0)
    waiting = [asyncio.create_task(patient.get(CONFIG_MAPS, "shop", "a")) for _ in range(every + 1)]
    while len(server.api.calls) < every:  # noqa: ASYNC110 - real connections, no one event
        await asyncio.sleep(0.01)
    own = client.apart(60.0)
    try:
        assert (await own.list_all(LEASES, "shop"))[0] == []
        assert len(server.api.calls) == every + 1, "the last of the others has no connection yet"
    finally:
        await own.close()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_dropped_connection_and_a_closed_port_are_unavailable(server, client, tmp_path):
    server.api.fault(Drop())
    with pytest.raises(UnavailableError):
        await client.merge_patch(CONFIG_MAPS, "shop", "a", {})
    async with FakeServer(FakeApi()) as gone:
        path = gone.kubeconfig(tmp_path / "gone")
    lost = await Client.from_kubeconfig(path)
    with pytest.raises(UnavailableError):
        await lost.get(CONFIG_MAPS, "shop", "a")
    await lost.close()


async def test_a_name_can_never_become_a_path(client):
    with pytest.raises(NotFoundError, match=r"configmaps/\.\.%2Fsecrets%2Fx"):
        await client.get(CONFIG_MAPS, "shop", "../secrets/x")


async def test_a_watch_yields_events_and_bookmarks_and_ends_by_itself(server, client):
    server.api.bookmark_every = 0.05
    await client.create(CONFIG_MAPS, "shop", config_map(x="x" * 300_000))
    expected = {("ADDED", "a"), ("BOOKMARK", None)}
    async with asyncio.timeout(60):
        watch = client.watch(CONFIG_MAPS, "shop", resource_version="100", timeout=120)
        async for kind, obj in watch:
            expected.discard((kind, obj["metadata"].get("name")))
            if not expected:
                break
        await watch.aclose()
        async for _ in client.watch(CONFIG_MAPS, "shop", resource_version="100", timeout=1):
            pass


async def test_a_watch_tells_gone_from_unavailable(server, client):
    server.api.store.compact()
    with pytest.raises(GoneError):
        async for _ in client.watch(CONFIG_MAPS, resource_version="1"):
            pass
    server.api.fault(Answer(503), verb="watch")
    with pytest.raises(UnavailableError):
        async for _ in client.watch(CONFIG_MAPS, resource_version="100"):
            pass


async def test_a_silent_watch_is_ended(server, client, monkeypatch):
    monkeypatch.setattr("canary_rollout.kube.client.WATCH_SILENCE", 0.05)
    events = [event async for event in client.watch(CONFIG_MAPS, resource_version="100", timeout=60)]
    assert events == []


async def test_new_credentials_are_read_when_the_old_ones_are_refused(server, client, tmp_path, seen):
    server.accept = {"Bearer fresh"}
    with pytest.raises(ForbiddenError):
        await client.get(CONFIG_MAPS, "shop", "a")
    path = tmp_path / "config"
    config = yaml.safe_load(path.read_text())
    config["users"][0]["user"] = {"tokenFile": str(tmp_path / "token")}
    path.write_text(yaml.safe_dump(config))
    (tmp_path / "token").write_text("stale")
    second = await Client.from_kubeconfig(str(path), observer=seen)
    (tmp_path / "token").write_text("fresh")
    with pytest.raises(NotFoundError):
        await second.get(CONFIG_MAPS, "shop", "a")
    await second.close()
    assert seen.calls[-2:] == [("get", "configmaps", 401), ("get", "configmaps", 404)]


async def test_the_server_date_is_handed_on(client, seen):
    before = time.time()
    await client.list_all(CANARY_ROLLOUTS)
    [(server, received)] = seen.dates
    assert before - 1 <= server <= received <= time.time(), "a Date has whole seconds"


async def test_a_missing_kubeconfig_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="set KUBECONFIG"):
        await Client.from_kubeconfig(str(tmp_path / "none"))


async def test_outside_a_pod_the_in_cluster_client_says_so(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="does not run in a pod"):
        Client.in_cluster()


async def test_the_in_cluster_token_is_read_again(server, tmp_path, monkeypatch):
    from kubernetes.aio.config import incluster_config

    (tmp_path / "token").write_text("one")
    (tmp_path / "ca.crt").write_text("not read over http")
    (tmp_path / "namespace").write_text("canary-system\n")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *_, **__: None)
    client = Client.in_cluster()
    assert client.namespace == "canary-system"
    connection = await client.connection()
    assert (connection.server, connection.authorization) == ("https://127.0.0.1:1", "bearer one")
    (tmp_path / "token").write_text("two")
    loader = client._configuration.refresh_api_key_hook.__closure__[0].cell_contents
    loader.token_expires_at = loader.token_expires_at.replace(year=2000)
    assert (await client.connection()).authorization == "bearer two"
    await client.close()
