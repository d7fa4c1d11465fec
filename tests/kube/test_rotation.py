"""Credentials in a kubeconfig are replaced while the process runs, as on a host where no kubelet does it."""

import asyncio
import shutil
import ssl
import subprocess

import pytest
import yaml
from aiohttp import web
from fake_api import FakeApi, FakeServer

from canary_rollout.kube.client import Client
from canary_rollout.kube.port import CONFIG_MAPS, ForbiddenError, NotFoundError


@pytest.fixture
async def server():
    async with FakeServer(FakeApi()) as server:
        server.accept = {"Bearer old"}
        yield server


@pytest.fixture
async def client(server, tmp_path):
    client = await Client.from_kubeconfig(server.kubeconfig(tmp_path / "config", token="old"))
    yield client
    await client.close()


async def is_let_in(client) -> None:
    with pytest.raises(NotFoundError):
        await client.get(CONFIG_MAPS, "shop", "a")


async def test_a_token_written_into_the_kubeconfig_is_taken_when_the_old_one_is_refused(server, client, tmp_path):
    await is_let_in(client)
    server.accept = {"Bearer new"}
    server.kubeconfig(tmp_path / "config", token="new")
    await is_let_in(client)


@pytest.mark.parametrize("text", [None, "", "users: [", "users: []"], ids=["gone", "empty", "half", "another"])
async def test_a_kubeconfig_that_is_just_being_replaced_ends_nobody(server, client, tmp_path, text):
    server.accept = {"Bearer new"}
    path = tmp_path / "config"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ForbiddenError):
        await client.get(CONFIG_MAPS, "shop", "a")
    server.kubeconfig(path, token="new")
    client._relogin_at = float("-inf")  # ten seconds later
    await is_let_in(client)


def openssl(*words, cwd):
    subprocess.run(["openssl", *words], cwd=cwd, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
async def test_a_certificate_replaced_on_the_disk_is_shown_when_the_old_one_is_refused(tmp_path):
    for name in ("server", "old", "new"):
        await asyncio.to_thread(
            openssl,
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", f"{name}.key", "-out", f"{name}.crt"),
            cwd=tmp_path,
        )
    accepted = {"old"}

    async def answer(request):
        shown = request.transport.get_extra_info("peercert") or {}
        names = {value for part in shown.get("subject", ()) for _, value in part}
        status = {"kind": "Status", "code": 404 if names & accepted else 401}
        return web.json_response(status, status=status["code"])

    both = (tmp_path / "old.crt").read_text() + (tmp_path / "new.crt").read_text()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=both)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    for kind in ("crt", "key"):
        shutil.copy(tmp_path / f"old.{kind}", tmp_path / f"mine.{kind}")
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(tmp_path / "server.crt")}
    mine = {"client-certificate": str(tmp_path / "mine.crt"), "client-key": str(tmp_path / "mine.key")}
    config = {
        "current-context": "a",
        "clusters": [{"name": "a", "cluster": cluster}],
        "users": [{"name": "a", "user": mine}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    client = await Client.from_kubeconfig(str(tmp_path / "config"))
    try:
        await is_let_in(client)
        accepted.clear()
        accepted.add("new")
        for kind in ("crt", "key"):
            shutil.copy(tmp_path / f"new.{kind}", tmp_path / f"mine.{kind}")
        await is_let_in(client)
    finally:
        await client.close()
        await runner.cleanup()
