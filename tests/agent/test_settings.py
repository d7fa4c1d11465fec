"""The agent's settings, and how long it waits between two tries."""

import os
import subprocess
import sys

import pytest
from proxies import ENVIRONMENT

from canary_rollout.agent.agent import renew_interval
from canary_rollout.agent.follow import Backoff
from canary_rollout.agent.settings import SettingsError, from_environment


def test_outside_a_cluster_everything_listens_on_loopback():
    settings = from_environment(ENVIRONMENT)
    assert settings.bind == ("127.0.0.1",)
    assert settings.control == "127.0.0.1:8079"
    assert settings.port == 9113
    assert settings.work.is_absolute()
    assert 1 <= settings.workers <= 8


def test_in_a_cluster_it_listens_on_the_pods_addresses_and_the_control_address_stays_loopback():
    settings = from_environment({**ENVIRONMENT, "KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    assert settings.bind[0] == "0.0.0.0"
    assert settings.control.startswith("127.0.0.1:")


def test_pods_on_one_machine_are_told_apart_by_their_loopback_address():
    settings = from_environment({**ENVIRONMENT, "BIND_ADDRESS": "127.244.0.7", "CONTROL_PORT": "9001"})
    assert (settings.bind, settings.control) == (("127.244.0.7",), "127.244.0.7:9001")
    assert from_environment({**ENVIRONMENT, "BIND_ADDRESS": "::1"}).bind == ("[::1]",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"NAMESPACE": ""}, "not set: NAMESPACE"),
        ({"POD_NAME": "", "WORK_DIR": ""}, "POD_NAME, WORK_DIR"),
        ({"BIND_ADDRESS": "example.com"}, "no IP address"),
        ({"BIND_ADDRESS": "127.0.0.1; x"}, "no IP address"),
        ({"CONTROL_PORT": "80"}, "no port"),
        ({"METRICS_PORT": "٣٠٠٠"}, "no port"),
        ({"NGINX_WORKERS": "0"}, "no number"),
        ({"NGINX_WORKERS": "many"}, "no number"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(change, said):
    with pytest.raises(SettingsError, match=said):
        from_environment({**ENVIRONMENT, **change})


@pytest.mark.parametrize("arguments", [["run"], ["nginx"], ["run", "--work-dir", "x", "--bind-address", "x"]])
def test_the_command_says_in_one_sentence_what_is_missing(arguments, tmp_path):
    clean = {key: value for key, value in os.environ.items() if key not in ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-m", "canary_rollout.agent", *arguments],
        env=clean, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("canary-rollout-agent: ")
    assert "Traceback" not in done.stderr


def test_renewals_leave_room_for_two_that_fail():
    assert renew_interval(120) == 30
    assert renew_interval(4) == 1
    assert renew_interval(86_400) == 30


def test_pauses_grow_to_a_bound_and_begin_anew_after_a_success():
    backoff = Backoff(longest=2.0)
    pauses = [backoff.pause() for _ in range(10)]
    assert 0.05 <= pauses[0] <= 0.1
    assert all(pause <= 2.0 for pause in pauses)
    assert pauses[-1] >= 1.0
    backoff.reset()
    assert backoff.pause() <= 0.1
