import sys

import pytest

from canary_rollout.local.errors import ImageUnknownError
from canary_rollout.local.images import Image, command_line, find_image, split_reference


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("web", ("web", "latest")),
        ("web:v1", ("web", "v1")),
        ("example.com:5000/team/web", ("example.com:5000/team/web", "latest")),
        ("example.com:5000/team/web:v1", ("example.com:5000/team/web", "v1")),
        ("web:v1@sha256:00", ("web", "v1")),
        ("web@sha256:00", ("web", "latest")),
    ],
)
def test_a_reference_is_split_into_name_and_tag(reference, expected):
    assert split_reference(reference) == expected


def test_the_exact_reference_goes_before_the_name():
    registry = {"web": ["any"], "web:v2": ["second"]}
    assert find_image(registry, "web:v1").entrypoint == ("any",)
    assert find_image(registry, "web:v2").entrypoint == ("second",)


def test_an_unknown_image_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ImageUnknownError, match=r"'nope:v1'.*known: api, web"):
        find_image({"web": [], "api": []}, "nope:v1")


def test_a_tag_that_does_not_exist_is_refused():
    registry = {"web": Image(tags=frozenset({"v1"}))}
    find_image(registry, "web:v1")
    with pytest.raises(ImageUnknownError, match="no tag 'v2'"):
        find_image(registry, "web:v2")


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ([], [], [sys.executable, "-m", "web", "--version=v1"]),
        ([], ["--debug"], [sys.executable, "-m", "web", "--debug"]),
        (["sh", "-c"], [], ["sh", "-c"]),
        (["sh"], ["-c", "true"], ["sh", "-c", "true"]),
    ],
)
def test_command_replaces_the_entrypoint_and_args_replace_the_cmd(command, args, expected):
    image = Image(entrypoint=["{python}", "-m", "web"], cmd=["--version={tag}"])
    assert command_line(image, "web:v1", command, args) == expected
