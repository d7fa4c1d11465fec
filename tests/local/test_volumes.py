import base64
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canary_rollout.local.errors import VolumeNotReadyError
from canary_rollout.local.volumes import PodVolumes, read_payload, write_payload

NAMES = st.sampled_from(["a", "b", "dir/a", "dir/b", "deep/er/x"])
PAYLOADS = st.dictionaries(NAMES, st.binary(max_size=20), max_size=4)


def shown(directory):
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for name in directory.iterdir()
        if not name.name.startswith("..")
        for file in ([name] if name.is_file() else name.rglob("*"))
        if file.is_file()
    }


@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(payloads=st.lists(PAYLOADS, min_size=1, max_size=5))
def test_a_volume_shows_exactly_the_last_payload(tmp_path_factory, payloads):
    directory = tmp_path_factory.mktemp("volume")
    for payload in payloads:
        write_payload(directory, payload)
        assert shown(directory) == payload
    hidden = [entry for entry in directory.iterdir() if entry.name.startswith("..") and not entry.is_symlink()]
    assert len(hidden) == 1


def test_an_unchanged_payload_is_not_written_again(tmp_path):
    assert write_payload(tmp_path, {"a": b"1"})
    before = (tmp_path / "..data").readlink()
    assert not write_payload(tmp_path, {"a": b"1"})
    assert (tmp_path / "..data").readlink() == before
    assert write_payload(tmp_path, {"a": b"2"})


def test_a_reader_sees_all_of_the_old_or_all_of_the_new(tmp_path):
    write_payload(tmp_path, {"a": b"0", "b": b"0"})
    stop, mixed = threading.Event(), []

    def read():
        while not stop.is_set():
            # One resolution of the link, as a program that opens a directory once.
            try:
                found = read_payload((tmp_path / "..data").resolve())
            except FileNotFoundError:
                continue  # replaced while it was read
            if len(found) == 2 and found["a"] != found["b"]:
                mixed.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        write_payload(tmp_path, {"a": str(number).encode(), "b": str(number).encode()})
    stop.set()
    reader.join()
    assert mixed == []


class Source:
    def __init__(self):
        self.maps = {"settings": {"data": {"colour": "blue", "size": "9"}}}
        self.secrets = {"keys": {"data": {"token": base64.b64encode(b"hidden").decode()}}}

    def configmap(self, _namespace, name):
        return self.maps.get(name)

    def secret(self, _namespace, name):
        return self.secrets.get(name)


def volumes(tmp_path, source, *specs):
    pod = {
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web"}},
        "spec": {"volumes": list(specs)},
    }

    async def token():
        return "a-token"

    return PodVolumes(
        tmp_path, pod, pod_ip="10.244.1.2", host_ip="10.244.0.1", source=source, token=token, ca=b"the ca"
    )


async def test_every_kind_of_volume_is_filled(tmp_path):
    projected = [
        {"serviceAccountToken": {"path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt"}},
        {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    pod = volumes(
        tmp_path,
        Source(),
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "one", "configMap": {"name": "settings", "items": [{"key": "colour", "path": "x/c"}]}},
        {"name": "secret", "secret": {"secretName": "keys"}},
        {"name": "all", "projected": {"sources": projected}},
        {"name": "labels", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "none", "configMap": {"name": "gone", "optional": True}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "host", "hostPath": {"path": "/tmp"}},
    )
    assert await pod.sync()
    assert shown(tmp_path / "config") == {"colour": b"blue", "size": b"9"}
    assert shown(tmp_path / "one") == {"x/c": b"blue"}
    assert shown(tmp_path / "secret") == {"token": b"hidden"}
    assert shown(tmp_path / "all") == {"token": b"a-token", "ca.crt": b"the ca", "ns": b"n"}
    assert shown(tmp_path / "labels") == {"l": b'app="web"'}
    assert shown(tmp_path / "none") == {}
    assert list((tmp_path / "scratch").iterdir()) == []
    assert str(pod.path("host")) == "/tmp"


async def test_only_a_change_is_reported_as_one(tmp_path):
    source = Source()
    pod = volumes(tmp_path, source, {"name": "config", "configMap": {"name": "settings"}})
    assert await pod.sync()
    assert not await pod.sync()
    source.maps["settings"] = {"data": {"colour": "red"}}
    assert await pod.sync()
    assert shown(tmp_path / "config") == {"colour": b"red"}


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "gone"}}, 'configmap "gone" not found'),
        ({"secret": {"secretName": "gone"}}, 'secret "gone" not found'),
        ({"configMap": {"name": "settings", "items": [{"key": "nope", "path": "p"}]}}, "no key nope"),
        ({"nfs": {"server": "s"}}, "'nfs'.* not supported"),
    ],
)
async def test_what_cannot_be_mounted_is_named(tmp_path, volume, message):
    with pytest.raises(VolumeNotReadyError, match=message):
        await volumes(tmp_path, Source(), {"name": "v", **volume}).sync()


def test_a_pod_knows_which_objects_its_volumes_show(tmp_path):
    pod = volumes(
        tmp_path,
        Source(),
        {"name": "a", "configMap": {"name": "settings"}},
        {"name": "b", "projected": {"sources": [{"secret": {"name": "keys"}}]}},
    )
    assert pod.refers_to("configmap", "settings")
    assert pod.refers_to("secret", "keys")
    assert not pod.refers_to("secret", "settings")
