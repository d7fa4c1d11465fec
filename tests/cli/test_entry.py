"""Starting: what is loaded, what is offered, what is handed on."""

import json
import subprocess
import sys
import types

import click
import pytest

from canary_rollout.cli.main import COMMANDS, SECTIONS, cli

HEAVY = {"kubernetes", "pydantic", "rich", "kopf", "aiohttp", "yaml", "asyncio", "prometheus_api_client", "structlog"}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["status", "--help"],
        ["start", "--help"],
        ["set-weight", "--help"],
        ["diff", "--help"],
        ["backtest", "--help"],
        ["plan", "--help"],
    ],
)
def test_help_loads_click_and_nothing_heavy(words):
    script = f"""
import json, sys
from canary_rollout.cli.main import cli
try:
    cli.main({words!r}, prog_name="kubectl canary")
except SystemExit as ended:
    assert ended.code == 0
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "Usage: kubectl canary" in done.stdout
    roots = {name.partition(".")[0] for name in json.loads(done.stderr)}
    assert roots & HEAVY == set()


def test_the_table_in_the_help_says_what_the_commands_say_themselves():
    context = click.Context(cli)
    for name, (_, line) in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None, name
        assert command.name == name
        assert command.hidden == (not line)
        assert not line or command.short_help == line


def test_the_help_names_every_command_once(world):
    grouped = [name for _, names in SECTIONS for name in names]
    assert sorted(grouped) == sorted(name for name, (_, line) in COMMANDS.items() if line)
    shown = world.run("--help").stdout
    assert all(f"\n  {name} " in shown for name in grouped)


def test_lines_to_copy_from_the_help_are_lines(world):
    lines = world.run("completion", "--help").stdout.splitlines()
    assert "    chmod +x ~/.local/bin/kubectl_complete-canary" in lines


def test_every_command_of_the_table_has_a_help_text(world):
    for name, (_, line) in COMMANDS.items():
        if line and name != "demo":
            result = world.run(name, "--help")
            assert result.exit_code == 0
            assert f"Usage: kubectl canary {name}" in result.stdout


def test_demo_gets_all_its_arguments_untouched(world, monkeypatch):
    got = []
    demo = types.ModuleType("canary_rollout.local.demo")
    demo.main = lambda arguments: got.append(arguments) or 7
    monkeypatch.setitem(sys.modules, "canary_rollout.local.demo", demo)
    result = world.run("demo", "--fast", "--context", "kind", "-n", "x", "--help", "word")
    assert result.exit_code == 7
    assert got == [["--fast", "--context", "kind", "-n", "x", "--help", "word"]]


def test_the_version_is_printed(world):
    assert world.run("--version").stdout.startswith("kubectl-canary ")


def test_kubectls_completion_offers_names_of_rollouts(world, make):
    world.put(make["rollout"](name="cart"))
    result = world.run("__complete", "pause", "c")
    assert result.stdout.splitlines() == ["cart", "checkout", ":4"]
    assert world.run("__complete", "pause", "ch").stdout.splitlines() == ["checkout", ":4"]


def test_kubectls_completion_offers_commands_and_options(world):
    offered = world.run("__complete", "set").stdout
    assert offered.startswith("set-weight\t")
    assert "--reason" in world.run("__complete", "rollback", "checkout", "--re").stdout
    assert "__complete" not in world.run("__complete", "").stdout


def test_completion_of_names_respects_the_namespace(world, make):
    world.put(make["rollout"](name="ledger", namespace="bank"))
    assert world.run("__complete", "pause", "-n", "bank", "").stdout.splitlines() == ["ledger", ":4"]


def test_completion_without_a_cluster_offers_nothing_and_does_not_fail(world, make, monkeypatch):
    world.api.fail["list"] = make["unavailable"]()
    result = world.run("__complete", "pause", "c")
    assert (result.exit_code, result.stdout, result.stderr) == (0, ":4\n", "")
    monkeypatch.setenv("CANARY_COMPLETION_DEBUG", "1")
    assert "no answer" in world.run("__complete", "pause", "c").stderr


def test_completion_scripts_name_the_program(world):
    assert "kubectl-canary __complete" in world.run("completion").stdout
    for shell in ("bash", "zsh", "fish"):
        assert "kubectl-canary" in world.run("completion", shell).stdout
