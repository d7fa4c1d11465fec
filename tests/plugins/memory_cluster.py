"""Objects in memory behind the port of the API server, and an operator that consumes commands there."""

import copy
from dataclasses import dataclass, field

from canary_rollout.kube.port import CANARY_ROLLOUTS, ConflictError, NotFoundError
from canary_rollout.model.commands import read_commands


class MemoryApi:
    """Objects by (plural, namespace, name). ``fail`` maps a verb to the error that its next calls raise."""

    def __init__(self):
        self.objects = {}
        self.calls = []
        self.fail = {}
        self.events = []
        self.user = "anna@example.com"
        self.version = 100

    def put(self, resource, obj):
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        meta = obj["metadata"]
        self.objects[resource.plural, meta["namespace"], meta["name"]] = obj

    def _begin(self, verb, resource, name=None):
        self.calls.append((verb, resource.plural, name))
        error = self.fail.get((verb, resource.plural)) or self.fail.get(verb)
        if error is not None:
            raise error

    def _find(self, resource, namespace, name):
        try:
            return self.objects[resource.plural, namespace, name]
        except KeyError:
            raise NotFoundError(f'{resource.plural} "{name}" not found (404 NotFound)', status=404) from None

    async def get(self, resource, namespace, name):
        self._begin("get", resource, name)
        return copy.deepcopy(self._find(resource, namespace, name))

    async def list_all(self, resource, namespace=None, *, labels="", fields=""):
        wanted = dict(term.split("=") for term in labels.split(",") if term)
        self._begin("list", resource)
        found = [
            copy.deepcopy(obj)
            for (plural, where, _), obj in self.objects.items()
            if plural == resource.plural
            and namespace in (None, where)
            and wanted.items() <= obj["metadata"].get("labels", {}).items()
        ]
        return found, str(self.version)

    async def create(self, resource, namespace, body):
        self._begin("create", resource)
        assert resource.plural == "selfsubjectreviews"
        return {"status": {"userInfo": {"username": self.user}}}

    async def merge_patch(self, resource, namespace, name, body, *, subresource=None, manager="?"):
        self._begin("patch", resource, name)
        assert manager == "kubectl-canary"
        assert list(body) == ["metadata"]
        assert list(body["metadata"]) == ["annotations"]
        obj = self._find(resource, namespace, name)
        annotations = obj["metadata"].setdefault("annotations", {})
        for key, value in body["metadata"]["annotations"].items():
            if value is None:
                annotations.pop(key, None)
            else:
                annotations[key] = value
        return copy.deepcopy(obj)

    async def json_patch(self, resource, namespace, name, operations, *, subresource=None, manager="?", dry_run=False):
        self._begin("dry-run" if dry_run else "patch", resource, name)
        assert manager == "kubectl-canary"
        obj = copy.deepcopy(self._find(resource, namespace, name))
        for operation in operations:
            *parents, last = [part for part in operation["path"].split("/") if part]
            at = obj
            for part in parents:
                at = at[int(part)] if isinstance(at, list) else at[part]
            if operation["op"] == "test" and at[last] != operation["value"]:
                raise ConflictError(f"test of {operation['path']} does not hold", status=422)
            if operation["op"] == "replace":
                at[last] = operation["value"]
        if not dry_run:
            self.put(resource, obj)
        return copy.deepcopy(obj)

    async def watch(self, resource, namespace=None, *, resource_version, labels="", fields="", timeout=290.0):  # noqa: ASYNC109 - the port
        self._begin("watch", resource)
        while self.events:
            event = self.events.pop(0)
            if isinstance(event, Exception):
                raise event
            yield event
        raise AssertionError("the watch was asked for more than the test foresaw")


@dataclass
class Operator:
    """Consumes commands as the real one does; ``refusal`` is what it says instead of yes."""

    api: MemoryApi
    refusal: str = ""
    running: bool = True
    seen: list = field(default_factory=list)

    def tick(self):
        if not self.running:
            return
        for (plural, _, _), obj in self.api.objects.items():
            if plural == CANARY_ROLLOUTS.plural:
                self._consume(obj)

    def _consume(self, obj):
        commands, errors = read_commands(obj["metadata"].get("annotations", {}))
        assert errors == []
        status = obj.setdefault("status", {})
        consumed = status.setdefault("consumed", {})
        for command in commands:
            if consumed.get(command.verb) == command.id:
                continue
            self.seen.append(command)
            consumed[command.verb] = command.id
            status["lastCommand"] = {
                "id": command.id,
                "command": command.verb,
                "at": "2025-11-21T10:00:00.000Z",
                "accepted": not self.refusal,
                "message": self.refusal or f"done: {command.verb}",
            }
