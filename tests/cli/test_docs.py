"""The examples of docs/commands.md, run from top to bottom against the real engine: what they show is what is printed.

``<!-- test: … -->`` above a block prepares the world: ``new`` (stable and canary equal), ``start IMAGE``, ``later SECONDS``,
``sticky`` (tenants are kept), ``write FILE`` (the manifest; with ``OLD -> NEW`` behind it, changed). Two HTTP servers, one
of which has a wrong price, stand at the addresses of ``VERSIONS``.
``CANARY_DOCS_UPDATE=1 pytest tests/cli/test_docs.py`` writes what is printed now into the page.
"""

import json
import os
import re
import shlex
from pathlib import Path

import pytest
import yaml
from past_rollout import under_way
from prometheus_answers import prometheus
from two_versions import versions

from canary_rollout.cli.differ.report import summed_up
from canary_rollout.cli.main import COMMANDS
from canary_rollout.kube.port import DEPLOYMENTS, PODS
from canary_rollout.model.commands import Verb, read_commands
from canary_rollout.model.measures import Gate

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
PARTS = re.compile(
    r"(?P<past><!-- past: .*? -->\n```console\n.*?```)|<!-- test: (?P<steps>.*?) -->|```console\n(?P<block>.*?)```",
    re.DOTALL,
)
FORWARDED = "http://127.0.0.1:9090"
VERSIONS = ("http://127.0.0.1:8081", "http://127.0.0.1:8082")
TIMES = re.compile(r"Answered in .*")
CLOCKS = re.compile(r"\d\d-\d\d \d\d:\d\d:\d\d|\d\d:\d\d:\d\dZ?|\d{4}-\d\d-\d\dT")
PAST = re.compile(r"<!-- past: (?P<namespace>\w+) (?P<age>\d+) -->\n```console\n(?P<block>.*?)```", re.DOTALL)
"""Blocks that need a Prometheus with a past (``past_metrics``), ``age`` seconds before its end."""
TENANTS = "\n".join(f"tenant-{number}" for number in range(1, 501))


def prepare(world, make, steps):
    for step in filter(None, (part.strip() for part in steps.split(";"))):
        word, _, rest = step.partition(" ")
        if word == "new":
            world.operator.tick = lambda: None
            world.now = make["now"]
            world.put(make["rollout"](metrics={"prometheus": "http://prometheus.monitoring:9090", "source": "agent"}))
            world.put(make["deployment"]("checkout"))
            world.put(make["deployment"]("checkout-canary"))
            world.adopt()
        elif word == "sticky":
            world.rollout()["spec"]["traffic"]["sticky"] = {"header": "X-Tenant-ID", "fallback": "clientIP"}
        elif word == "write":
            name, _, change = rest.partition(" ")
            before, _, after = change.partition(" -> ")
            shown = {key: world.rollout()[key] for key in ("apiVersion", "kind", "spec")}
            shown["metadata"] = {"name": "checkout", "namespace": "shop"}
            Path(name).write_text(yaml.safe_dump(shown).replace(before, after), encoding="utf-8")
        elif word == "start":
            assert world.run("start", "checkout", "--image", rest).exit_code == 0
        else:
            world.later(int(rest), step=20 if int(rest) < 20_000 else 600)


def printed(world, command, addresses):
    words = [addresses.get(word, word) for word in shlex.split(command)]
    assert words[:2] == ["kubectl", "canary"]
    lines = [line.rstrip() for line in world.run(*words[2:]).output.splitlines()]
    return "\n".join(lines).strip("\n")


def item(path, price):
    return {"id": path.rpartition("/")[2], "price": price, "currency": "EUR"}


@pytest.mark.thorough
def test_every_example_prints_what_the_page_says(world, make, tmp_path, monkeypatch):
    page = PAGE.read_text(encoding="utf-8")
    blocks = 0
    monkeypatch.chdir(tmp_path)
    Path("tenants.txt").write_text(TENANTS, encoding="utf-8")
    Path("access.log").write_text(
        "".join(
            f'10.0.0.9 - - [21/Nov/2025:09:00:00 +0000] "GET /items/{number} HTTP/1.1" 200 61\n' for number in range(40)
        ),
        encoding="utf-8",
    )
    stable = lambda path: item(path, 100)  # noqa: E731
    canary = lambda path: item(path, 107 if path.endswith("7") else 100.1)  # noqa: E731
    with prometheus() as (_, url), versions(stable, canary) as servers:
        addresses = {FORWARDED: url, **{shown: server.url for shown, server in zip(VERSIONS, servers, strict=True)}}

        def run(match):
            nonlocal blocks
            if match["past"] is not None:
                return match[0]
            if match["steps"] is not None:
                prepare(world, make, match["steps"])
                return match[0]
            blocks += 1
            commands = [line for line in match["block"].splitlines() if line.startswith("$ ")]
            shown = (f"{command}\n{printed(world, command.removeprefix('$ '), addresses)}\n" for command in commands)
            return f"```console\n{''.join(shown)}```"

        fresh = PARTS.sub(run, page)
    assert blocks >= 12
    if "CANARY_DOCS_UPDATE" in os.environ:
        PAGE.write_text(fresh, encoding="utf-8")
    assert make["words"](TIMES.sub("", page)) == make["words"](TIMES.sub("", fresh))


def put_into_the_past(world, make, past, namespace):
    """The rollout of the examples in a namespace of ``past_metrics``, in the cluster and as rollout.yaml."""
    raw = make["rollout"](namespace=namespace)
    raw["spec"] |= {
        "stages": [
            {"name": "few", "weight": "5%", "hold": "8m"},
            {"name": "more", "weight": "25%", "hold": "10m", "exit": [{"preset": "latency-p75", "maxRatio": "1.10"}]},
            {"name": "all", "weight": "100%", "hold": "5m"},
        ],
        "metrics": {
            "prometheus": "http://prometheus.monitoring:9090",
            "interval": "15s",
            "window": "2m",
            "history": "15m",
        },
        "defaultHaltRules": False,
        "haltRules": [{"name": name} for name in ("error-rate", "error-rate-vs-stable", "p99-latency")],
    }
    raw["status"] = under_way(past.end, raw["spec"], "more", 2500).to_dict()
    world.put(raw)
    for name, replica_set, pod in (
        ("checkout", "checkout-6b7f9c", "aaaaa"),
        ("checkout-canary", "checkout-canary-7d8e9f", "ddddd"),
    ):
        world.api.put(DEPLOYMENTS, make["deployment"](name, namespace=namespace))
        metadata = {
            "name": f"{replica_set}-{pod}",
            "namespace": namespace,
            "labels": {"app": name},
            "ownerReferences": [{"kind": "ReplicaSet", "name": replica_set}],
        }
        world.api.put(PODS, {"metadata": metadata})
    shown = {key: raw[key] for key in ("apiVersion", "kind", "spec")}
    shown["metadata"] = {"name": "checkout", "namespace": namespace}
    Path("rollout.yaml").write_text(yaml.safe_dump(shown), encoding="utf-8")


@pytest.mark.prometheus
def test_examples_with_a_past_print_what_the_page_says(world, make, past, tmp_path, monkeypatch):
    page = PAGE.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    blocks = 0

    def run(match):
        nonlocal blocks
        blocks += 1
        put_into_the_past(world, make, past, match["namespace"])
        world.namespace = match["namespace"]
        world.now = past.end if "backtest" in match["block"] else past.end - int(match["age"])
        command = match["block"].splitlines()[0].removeprefix("$ ")
        text = printed(world, command, {FORWARDED: past.url})
        head = match[0].partition("```console")[0]
        return f"{head}```console\n$ {command}\n{text}\n```"

    fresh = PAST.sub(run, page)
    assert blocks == 3
    if "CANARY_DOCS_UPDATE" in os.environ:
        PAGE.write_text(fresh, encoding="utf-8")
    assert CLOCKS.sub("", make["words"](page)) == CLOCKS.sub("", make["words"](fresh))


def test_the_page_speaks_of_every_command_and_every_verb():
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name, (_, line) in COMMANDS.items() if line and f"`{name}" not in page] == []

    page = PAGE.read_text(encoding="utf-8")
    assert [verb for verb in Verb if f"$ kubectl canary {verb} " not in page] == []


def test_the_exit_gate_for_a_diff_is_one_the_resource_takes_and_asks_for_what_is_pushed():
    (block,) = re.findall(r"```yaml\n(exit:.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (gate,) = [Gate.model_validate(raw) for raw in yaml.safe_load(block)["exit"]]
    pushed = summed_up([], 0.0).to_metrics("shop", "checkout", "abc")
    name, labels = re.search(r"(canary_diff_\w+)\{(.*?)\}", gate.query).groups()
    assert name == "canary_diff_different_ratio"
    for label in re.findall(r"(\w+)=", labels):
        assert f"{label}=" in pushed


def test_the_annotation_for_plain_kubectl_is_one_the_operator_reads(make):
    page = PAGE.read_text(encoding="utf-8")
    key, value = re.search(r'--overwrite (\S+)="\$\(cat <<END\n(.*?)\nEND', page, re.DOTALL).groups()
    for pattern, said in (
        (r"\$\(cat [^)]*\)", "0f9e8d7c-1234-5678-9abc-def012345678"),
        (r"\$\(kubectl [^)]*\)", make["revision"]),
        (r"\$\(date [^)]*\)", "2025-11-21T10:00:00Z"),
    ):
        value, count = re.subn(pattern, said, value)
        assert count == 1
    json.loads(value)
    (command,), errors = read_commands({key: value})
    assert errors == []
    assert (command.verb, command.args.weight, command.at) == (Verb.SET_WEIGHT, "10%", make["now"])


@pytest.mark.parametrize("place", ["/root", "/tmp", "/work"])
def test_the_page_names_no_path_of_this_machine(place):
    assert place not in PAGE.read_text(encoding="utf-8")
