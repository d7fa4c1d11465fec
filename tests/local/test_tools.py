import asyncio

import pytest

from canary_rollout.local import tools
from canary_rollout.local.errors import ToolMissingError
from canary_rollout.local.tools import TOOLS, Tool, ensure_tool, first_match, on_path, parse_version, version_of


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("nginx version: nginx/1.31.3", (1, 31, 3)),
        ("Client Version: v1.37.1\nKustomize Version: v5.8.0", (1, 37, 1)),
        ("prometheus, version 2.42.0+ds (branch: x)", (2, 42, 0)),
        ("no number", None),
    ],
)
def test_versions_are_read_from_what_programs_print(text, version):
    assert parse_version(text) == version


def test_every_requirement_is_pinned():
    assert all("==" in tool.requirement for tool in TOOLS.values())


def program(directory, version, name="thing"):
    directory.mkdir(exist_ok=True)
    file = directory / name
    file.write_text(f"#!/bin/sh\necho {name} {version}\n")
    file.chmod(0o755)
    return file


async def test_a_program_on_path_is_taken_only_when_it_is_new_enough(monkeypatch, tmp_path):
    tool = Tool("thing", "", (), ("--version",), (1, 5))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert await on_path(tool) is None
    program(tmp_path, "1.4.9")
    assert await on_path(tool) is None
    file = program(tmp_path, "1.10.0")
    assert await on_path(tool) == file


async def test_a_program_that_cannot_be_started_has_no_version(tmp_path):
    file = tmp_path / "thing"
    file.write_text("not a program")
    assert await version_of(file, TOOLS["go"]) is None


async def test_what_is_nowhere_is_installed_once_into_the_cache(monkeypatch, tmp_path):
    installed = []

    async def install(requirement, target):
        installed.append(requirement)
        await asyncio.sleep(0.01)
        program(target / "bin", "2.0.0")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(tools, "pip_install", install)
    monkeypatch.setattr(tools, "TOOLS", {"thing": Tool("thing", "thing-pkg==2.0.0", ("bin/thing",), (), (1,))})
    reports = []
    first, second = await asyncio.gather(*(ensure_tool("thing", reports.append) for _ in range(2)))
    assert first == second == tmp_path / "canary-rollout" / "tools" / "thing-pkg-2.0.0" / "bin" / "thing"
    assert installed == ["thing-pkg==2.0.0"]
    assert "thing-pkg==2.0.0" in reports[0].message


async def test_a_package_without_the_program_is_named_with_what_to_do(monkeypatch, tmp_path):
    async def install(_requirement, _target):
        return

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tools, "pip_install", install)
    monkeypatch.setattr(tools, "TOOLS", {"thing": Tool("nothing-here", "thing-pkg==2.0.0", ("bin/x",), (), (1,))})
    with pytest.raises(ToolMissingError, match="at least 1 on PATH"):
        await ensure_tool("thing")


async def test_an_installation_that_fails_shows_the_installers_words(tmp_path):
    with pytest.raises(ToolMissingError, match="could not install not/a/requirement"):
        await tools.pip_install("not/a/requirement", tmp_path)


def test_the_first_pattern_that_fits_wins(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").touch()
    assert first_match(tmp_path, ("a/*", "b/*")) == tmp_path / "b" / "x"
    assert first_match(tmp_path, ("a/*",)) is None


async def test_nginx_and_kubectl_of_the_development_environment_are_found():
    assert await version_of(await ensure_tool("nginx"), TOOLS["nginx"]) >= (1, 27, 4)
    assert await version_of(await ensure_tool("kubectl"), TOOLS["kubectl"]) >= (1, 37)
