"""The operator's process does not load what it never uses, and can do without."""

import json
import subprocess
import sys

CODE = """
import json, sys
from canary_rollout.controller.lean import leave_out
leave_out()
import canary_rollout.controller.main
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.config.incluster_config import load_incluster_config
from canary_rollout.controller.logs import configure
configure(level="info", fmt="json")
unwanted = ("rich", "oauthlib", "websocket", "kubernetes.dynamic", "kubernetes.leaderelection", "kubernetes.client")
print(json.dumps([name for name in unwanted if sys.modules.get(name) is not None]))
"""


def test_a_process_without_them_connects_watches_and_logs_all_the_same():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=600, check=True)
    assert json.loads(done.stdout) == []
