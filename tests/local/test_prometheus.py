import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from canary_rollout.local.build import ensure_prometheus
from canary_rollout.local.errors import LocalClusterError
from canary_rollout.local.process import ProcessTable
from canary_rollout.local.prometheus import (
    Prometheus,
    by_file,
    duration,
    pod_scrape_config,
    static_scrape_config,
    target_groups,
)

POD = {
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "uid": "u",
        "labels": {"app": "web", "app.kubernetes.io/part-of": "x"},
        "annotations": {"prometheus.io/scrape": "true"},
    },
    "spec": {"nodeName": "local"},
    "status": {"phase": "Running", "podIP": "10.244.1.2"},
}


@pytest.mark.parametrize(("seconds", "text"), [(1, "1000ms"), (0.25, "250ms"), (15.0, "15000ms")])
def test_durations_are_written_in_milliseconds(seconds, text):
    assert duration(seconds) == text


def test_pods_are_listed_as_kubernetes_discovery_would_show_them():
    (group,) = target_groups([POD, {**POD, "status": {}}])
    assert group["targets"] == ["10.244.1.2"]
    labels = group["labels"]
    assert labels["__meta_kubernetes_pod_name"] == "web-1"
    assert labels["__meta_kubernetes_namespace"] == "shop"
    assert labels["__meta_kubernetes_pod_label_app_kubernetes_io_part_of"] == "x"
    assert labels["__meta_kubernetes_pod_annotation_prometheus_io_scrape"] == "true"


@pytest.fixture
async def table(tmp_path):
    table = ProcessTable(tmp_path, remove_run_dir=False)
    yield table
    await table.close(1.0)


def stands_still(pid):
    """Whether every thread is stopped; the state follows the name, which ends with the last bracket."""
    stats = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {text.rpartition(")")[2].split()[0] for text in stats} == {"T"}


@pytest.mark.prometheus
async def test_a_prometheus_with_static_targets_scrapes_freezes_thaws_and_keeps_its_data_over_a_restart(
    table, tmp_path
):
    binary = await ensure_prometheus()
    prometheus = Prometheus(binary.path, tmp_path / "prometheus", table, scrape_interval=0.2)
    prometheus.scrape_configs = [
        static_scrape_config("itself", [f"127.0.0.1:{prometheus.port}"], 0.2, {"who": "me"}),
        pod_scrape_config(by_file(tmp_path / "pods.json"), 0.2),
    ]
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": str(prometheus.port)}
    here = {**POD, "metadata": {**POD["metadata"], "annotations": annotations}, "status": {"podIP": "10.0.0.1"}}
    (tmp_path / "pods.json").write_text(json.dumps(target_groups([here])))
    await prometheus.start()
    result = []

    async def scraped():
        while True:
            result[:] = await prometheus.query("up == 1")
            if len(result) == 2:
                return
            await asyncio.sleep(0.05)

    async with asyncio.timeout(60):
        await scraped()
    by_job = {labels["job"]: labels for labels, _ in result}
    assert by_job["itself"]["who"] == "me"
    assert by_job["pods"].items() >= {"namespace": "shop", "pod": "web-1", "node": "local", "app": "web"}.items()
    assert await prometheus.query("1 + 1") == [({}, 2.0)]
    with pytest.raises(LocalClusterError, match="parse error"):
        await prometheus.query("sum(")

    prometheus.freeze()
    async with asyncio.timeout(60):
        while not stands_still(prometheus.process.pid):  # noqa: ASYNC110  # a signal reaches a thread when that is run
            await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), aiohttp.ClientSession() as session, session.get(prometheus.url):
            pass
    prometheus.thaw()
    await prometheus.query("1")

    await prometheus.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await prometheus.query("1")
    await prometheus.start()
    ((_, samples),) = await prometheus.query('count_over_time(up{who="me"}[5m])')
    assert samples >= 1
    prometheus.scrape_configs = [{"job_name": "broken", "no_such_field": 1}]
    with pytest.raises(LocalClusterError, match="refused its configuration"):
        await prometheus.reload()
    prometheus.scrape_configs = []
    await prometheus.reload()
