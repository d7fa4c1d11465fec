"""The log of nginx: lines become counts, over pieces and renames, each once."""

import asyncio
import random

import pytest
from keepalive import Load
from proxies import edge, eventually, settled, until

from canary_rollout.agent.accesslog import MOST_SERIES, RequestCounter, Tail


def test_lines_become_counts_errors_and_latency():
    counter = RequestCounter()
    counter.rollout = "checkout"
    counter.tenants.begin("v2")
    counter.count(b"canary everyone v2 200 0.004 v2 0042\ncanary everyone v2 503 0.2 v2 0049\n")
    counter.count(b"stable internal v1 499 3.0 v2 9999\nstable everyone v1 200 0.1 v1 9998\n")
    counter.count(b"  400 0.000 - -\nnonsense\ncanary everyone v2 200 zero v2 0042\ncanary everyone v2 200 0.1 v2 x\n")
    found = {(s.name, *sorted(s.labels.items())): s.value for metric in counter.collect() for s in metric.samples}
    canary = (("cohort", "everyone"), ("revision", "v2"), ("rollout", "checkout"), ("version", "canary"))
    stable = (("cohort", "internal"), ("revision", "v1"), ("rollout", "checkout"), ("version", "stable"))
    assert found["canary_requests_total", *canary] == 2
    assert found["canary_errors_total", *canary] == 1
    assert found["canary_errors_total", *stable] == 0, "499 is the client's own doing"
    assert found["canary_latency_seconds_sum", *canary] == pytest.approx(0.204)
    assert found["canary_agent_malformed_lines_total",] == 4
    bucket = (("bucket", "4"), ("revision", "v2"), ("rollout", "checkout"), ("version", "canary"))
    assert found["canary_bucket_requests_total", *bucket] == 2
    assert found["canary_bucket_errors_total", *bucket] == 1
    assert len([key for key in found if key[0] == "canary_bucket_requests_total"]) == 1, "members, and other orders"


@pytest.mark.thorough
def test_another_revision_begins_the_buckets_of_tenants_anew_and_they_stay_bounded():
    counter = RequestCounter()
    for revision in range(20):
        counter.tenants.begin(f"r{revision}")
        for place in range(10_000):
            counter.count(f"canary everyone r{revision} 200 0.1 r{revision} {place:04d}\n".encode())
            counter.count(f"stable everyone old{revision % 7} 200 0.1 r{revision} {place:04d}\n".encode())
    requests = next(metric for metric in counter.collect() if metric.name == "canary_bucket_requests")
    assert len(requests.samples) == 2 * 1000
    assert {sample.value for sample in requests.samples} == {10}


def test_old_revisions_make_room():
    counter = RequestCounter()
    for n in range(MOST_SERIES + 50):
        counter.prepare("everyone", "canary", f"r{n}")
    requests = next(iter(counter.collect()))
    assert len(requests.samples) == MOST_SERIES


def inode(path):
    return path.stat().st_ino


def test_a_tail_loses_no_line_over_pieces_and_renames(tmp_path):
    path = tmp_path / "access.log"
    tail = Tail(path, chunk=64)
    expected, seen = [], b""
    assert tail.read() == b""
    generator = random.Random(7)
    for rename in range(3):
        with path.open("ab", buffering=0) as file:
            for n in range(50):
                line = f"line {rename} {n} {'x' * generator.randint(0, 90)}\n".encode()
                expected.append(line)
                cut = generator.randint(0, len(line))
                file.write(line[:cut])
                seen += tail.read()
                file.write(line[cut:])
            aside = tail.rename()
            file.write(b"late line\n")
            expected.append(b"late line\n")
            while piece := tail.read():
                seen += piece
            while piece := tail.read():
                seen += piece
        tail.next_file(aside)
    tail.close()
    assert seen == b"".join(expected)


@pytest.mark.nginx
async def test_the_log_is_begun_anew_under_load_and_every_request_is_counted_once(tmp_path, monkeypatch):
    monkeypatch.setattr("canary_rollout.agent.accesslog.LARGEST_LOG", 20_000)
    async with edge(tmp_path / "w", weight=2500) as proxy:
        load = Load("127.0.0.1", proxy.port, connections=8, think=0.002)
        load.start()
        first = inode(tmp_path / "w/log/access.log")
        await asyncio.sleep(8)
        await eventually(
            lambda: (tmp_path / "w/log/access.log").exists() and inode(tmp_path / "w/log/access.log") != first
        )
        seen = len(load.answers)
        await eventually(lambda: len(load.answers) > seen + 500)
        await load.stop()
        assert load.failures == []

        async def counted():
            await proxy.agent.counting.now()
            requests = next(iter(proxy.agent.counting.counter.collect()))
            return {sample.labels["version"]: sample.value for sample in requests.samples}

        of = {version: sum(a.body == version.encode() for a in load.answers) for version in ("stable", "canary")}
        await until(counted, lambda found: sum(found.values()) >= len(load.answers))
        assert await settled(counted) == of
