"""The Web Vitals collector: real requests in, what Prometheus reads out."""

import asyncio
import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary_rollout.vitals.beacon import LARGEST_BODY, VITALS, BeaconError, parse
from canary_rollout.vitals.collector import Collector
from canary_rollout.vitals.counts import HALF_LIFE, MOST_VERSIONS, Counts
from canary_rollout.vitals.main import parse as parse_arguments

ROOT = Path(__file__).resolve().parents[2]
GOOD = {
    "app": "checkout",
    "version": "1.5",
    "vitals": [{"name": "LCP", "value": 2340.5}, {"name": "INP", "value": 120}, {"name": "CLS", "value": 0.02}],
}


@contextlib.asynccontextmanager
async def collecting(*, origins=("*",), per_second=500.0):
    counts = Counts(frozenset({"checkout"}), lambda: 0.0)
    async with (
        Collector(counts, frozenset(origins), "127.0.0.1", (0, 0), per_second) as collector,
        aiohttp.ClientSession() as session,
    ):
        beacons, metrics = (f"http://127.0.0.1:{port}" for port in collector.ports)

        async def send(body, **options):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            async with session.post(f"{beacons}/vitals", data=data, **options) as response:
                return response

        async def shown():
            async with session.get(f"{metrics}/metrics") as response:
                return await response.text()

        yield send, shown, session, beacons


async def test_what_a_browser_measured_is_in_the_histograms_in_seconds():
    async with collecting() as (send, shown, _, _):
        # As navigator.sendBeacon sends a string: plain text, no preflight.
        response = await send(
            GOOD, headers={"Content-Type": "text/plain;charset=UTF-8", "Origin": "https://shop.example"}
        )
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        text = await shown()
    assert 'web_vitals_lcp_seconds_bucket{app="checkout",le="2.0",version="1.5"} 0.0' in text
    assert 'web_vitals_lcp_seconds_bucket{app="checkout",le="2.5",version="1.5"} 1.0' in text
    assert 'web_vitals_inp_seconds_bucket{app="checkout",le="0.15",version="1.5"} 1.0' in text
    assert 'web_vitals_cls_bucket{app="checkout",le="0.025",version="1.5"} 1.0' in text


REFUSED = {
    "not JSON": (b"lcp=3", 400, "form"),
    "a list": (b"[]", 400, "form"),
    "another app": (GOOD | {"app": "other"}, 403, "app"),
    "a version that is no name": (GOOD | {"version": 'v"1'}, 400, "form"),
    "a field too many": (GOOD | {"user": "me"}, 400, "form"),
    "no vitals": (GOOD | {"vitals": []}, 400, "form"),
    "an unknown vital": (GOOD | {"vitals": [{"name": "FID", "value": 1}]}, 400, "form"),
    "a negative value": (GOOD | {"vitals": [{"name": "LCP", "value": -1}]}, 400, "value"),
    "a value of a day": (GOOD | {"vitals": [{"name": "LCP", "value": 86_400_000}]}, 400, "value"),
    "infinity": (b'{"app":"checkout","version":"1","vitals":[{"name":"CLS","value":Infinity}]}', 400, "value"),
    "no number": (b'{"app":"checkout","version":"1","vitals":[{"name":"CLS","value":true}]}', 400, "value"),
    "a huge body": (b" " * (LARGEST_BODY * 20), 413, "size"),
    "deep nesting": (b"[" * 2000, 400, "form"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_beacon_is_refused_and_counted_as_that(name):
    body, status, reason = REFUSED[name]
    async with collecting() as (send, shown, _, _):
        assert (await send(body)).status == status
        text = await shown()
    assert f'web_vitals_beacons_refused_total{{reason="{reason}"}} 1.0' in text
    assert "web_vitals_lcp_seconds_bucket" not in text


@given(
    st.binary(max_size=300)
    | st.text(max_size=200).map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["app", "version", "vitals", "name", "value"]), inner)
        ),
        max_leaves=10,
    ).map(lambda raw: json.dumps(raw).encode())
)
def test_no_body_does_more_than_count_or_be_refused(body):
    with contextlib.suppress(BeaconError):
        assert parse(body).values


async def test_pages_of_other_origins_are_refused_and_a_preflight_says_so():
    async with collecting(origins=["https://shop.example"]) as (send, _, session, beacons):
        assert (await send(GOOD, headers={"Origin": "https://shop.example"})).status == 204
        assert (await send(GOOD, headers={"Origin": "https://evil.example"})).status == 403
        for origin, status in (("https://shop.example", 204), ("https://evil.example", 403)):
            async with session.options(f"{beacons}/vitals", headers={"Origin": origin}) as response:
                assert response.status == status
                assert response.headers.get("Access-Control-Allow-Origin") == (origin if status == 204 else None)


async def test_a_flood_is_refused():
    async with collecting(per_second=10.0) as (send, shown, _, _):
        answers = [(await send(GOOD)).status for _ in range(60)]
        assert answers[:20] == [204] * 20
        assert 429 in answers
        assert 'reason="rate"' in await shown()


async def test_the_beacons_port_shows_no_metrics():
    async with collecting() as (_, _, session, beacons):
        for path in ("/metrics", "/healthz", "/"):
            async with session.get(beacons + path) as response:
                assert response.status == 404


def test_made_up_versions_drive_out_each_other_and_not_the_real_one():
    clock = [0.0]
    counts = Counts(frozenset({"checkout"}), lambda: clock[0])
    for second in range(600):
        clock[0] = float(second)
        counts.take(parse(json.dumps(GOOD).encode()))
        counts.take(parse(json.dumps(GOOD | {"version": f"made-up-{second}"}).encode()))
    versions = {
        sample.labels["version"]
        for family in counts.registry.collect()
        for sample in family.samples
        if "version" in sample.labels
    }
    assert "1.5" in versions
    assert len(versions) <= MOST_VERSIONS
    (real,) = [
        sample.value
        for family in counts.registry.collect()
        for sample in family.samples
        if sample.name == "web_vitals_cls_count" and sample.labels["version"] == "1.5"
    ]
    assert real == 600
    clock[0] += 20 * HALF_LIFE  # long gone, it makes room
    for number in range(MOST_VERSIONS + 1):
        for _ in range(3):
            counts.take(parse(json.dumps(GOOD | {"version": f"later-{number}"}).encode()))
    left = {
        sample.labels["version"]
        for family in counts.registry.collect()
        for sample in family.samples
        if "version" in sample.labels
    }
    assert "1.5" not in left


@pytest.mark.parametrize("arguments", [[], ["--apps", "a b"], ["--apps", "a", "--origins", "shop"], ["--apps", ","]])
def test_a_wrong_command_line_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(arguments, {})
    assert ended.value.code == 2
    assert "--" in capsys.readouterr().err


def test_the_environment_says_what_the_command_line_does_not():
    given_ = parse_arguments(
        [], {"APPS": "checkout, search", "PORT": "1", "ORIGINS": "https://a.example,https://b.example:8443"}
    )
    assert (given_.apps, given_.port, given_.origins) == (
        ["checkout", "search"],
        1,
        ["https://a.example", "https://b.example:8443"],
    )


async def test_the_program_runs_and_ends_when_told():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "canary_rollout.vitals", "--apps", "checkout", "--host", "127.0.0.1"),
        *("--port", "0", "--metrics-port", "0"),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
        beacons, metrics = re.findall(r"port (\d+)", said)
        async with aiohttp.ClientSession() as session:
            async with session.post(f"http://127.0.0.1:{beacons}/vitals", json=GOOD) as response:
                assert response.status == 204
            async with session.get(f"http://127.0.0.1:{metrics}/metrics") as response:
                assert "web_vitals_cls_count" in await response.text()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# -- the contract ------------------------------------------------------------------------------------------------------

PAGE = """
const sent = [];
globalThis.document = { visibilityState: "visible" };
const listeners = {};
globalThis.addEventListener = (name, what) => { listeners[name] = what; };
Object.defineProperty(globalThis, "navigator", { value: { sendBeacon: (url, body) => sent.push([url, body]) } });
const later = [];
const [onLCP, onINP, onCLS] = ["LCP", "INP", "CLS"].map((name) => (report) => later.push(() => report({ name, value: name === "CLS" ? 0.05 : 1234.5 })));
BODY
later.forEach((report) => report());
listeners.visibilitychange();
document.visibilityState = "hidden";
listeners.visibilitychange();
listeners.pagehide();
console.log(JSON.stringify(sent));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the example's JavaScript")
def test_the_examples_beacon_is_one_the_collector_takes(tmp_path):
    example = (ROOT / "examples" / "web-vitals.js").read_text(encoding="utf-8")
    body = re.sub(r"^import .*$", "", example, flags=re.MULTILINE)
    script = tmp_path / "page.js"
    script.write_text(PAGE.replace("BODY", body), encoding="utf-8")
    ran = subprocess.run(["node", script], capture_output=True, text=True, timeout=120, check=True)
    ((url, sent),) = json.loads(ran.stdout)
    assert url == "/vitals"
    assert dict(parse(sent.encode()).values) == {"LCP": 1.2345, "INP": 1.2345, "CLS": 0.05}


def test_the_names_are_those_of_the_presets_and_hold_their_limits():
    from canary_rollout.metrics.presets import load

    read = {series for formula in load("web-vitals").measures.values() for series in formula.series()}
    assert {f"{vital.series}_bucket" for vital in VITALS.values()} <= read
    for name, limits in {"LCP": (2.5, 4.0), "INP": (0.2, 0.5), "CLS": (0.1, 0.25)}.items():
        assert set(limits) <= set(VITALS[name].buckets)
