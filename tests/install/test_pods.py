"""Every pod of the manifests and the examples may run where Pod Security is ``restricted`` and resources have a quota."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SHIPPED = sorted([*(ROOT / "manifests").glob("*.yaml"), *(ROOT / "examples").rglob("*.yaml")])
VOLUMES = {"name", "configMap", "downwardAPI", "emptyDir", "projected", "secret"}


def _pods():
    for path in SHIPPED:
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            template = ((document or {}).get("spec") or {}).get("template")
            if isinstance(template, dict) and "containers" in (template.get("spec") or {}):
                yield pytest.param(template["spec"], id=f"{path.name}-{document['metadata']['name']}")


PODS = list(_pods())


def test_there_are_pods_to_look_at():
    assert len(PODS) >= 6


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_is_restricted(pod):
    whole = pod.get("securityContext") or {}
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        own = container.get("securityContext") or {}
        assert (own.get("runAsNonRoot"), whole.get("runAsNonRoot")) != (None, None)
        assert False not in (own.get("runAsNonRoot"), whole.get("runAsNonRoot"))
        assert (own.get("seccompProfile") or whole.get("seccompProfile")) == {"type": "RuntimeDefault"}, container[
            "name"
        ]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["readOnlyRootFilesystem"] is True
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), container["name"]
        assert "memory" in container["resources"]["limits"]
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    assert all(set(volume) <= VOLUMES for volume in pod.get("volumes", []))
