"""Servers that want to see something first: certificates, tokens, tenants; and what is said when it is missing."""

import asyncio
import base64
import contextlib
import ssl
import subprocess

import pytest
from aiohttp import web
from metric_requests import make_request, make_spec

from canary_rollout.analysis.readings import REQUESTS, ReadingKind
from canary_rollout.metrics.client import PrometheusClient
from canary_rollout.metrics.errors import OutageError
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.metrics.sampler import PrometheusSampler
from canary_rollout.metrics.target import CredentialsError, NoSecrets, Target, targets_of

SECRET = "s3cret-t0ken"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A self-signed certificate of 127.0.0.1: files of key and certificate."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=prometheus"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return key, certificate


class Prometheus:
    """Answers every query with one sample per version, and remembers what it was shown."""

    def __init__(self) -> None:
        self.seen = []
        self.refuse = False

    async def answer(self, request):
        self.seen.append(dict(request.headers))
        if self.refuse:
            return web.Response(status=401, text="who are you?")
        series = [
            {"metric": {"namespace": "shop", "cr_arm": arm}, "value": [1, "7"]}
            for arm in ("checkout-6b7f9c-", "checkout-canary-7d8e-")
        ]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": series}})


@contextlib.asynccontextmanager
async def prometheus(certificates=None):
    server = Prometheus()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    context = None
    if certificates is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates[1], certificates[0])
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    port = runner.addresses[0][1]
    try:
        yield server, f"http{'s' if certificates else ''}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


class Secrets:
    """Secrets of one namespace."""

    def __init__(self, **data) -> None:
        self.data = data

    async def read(self, name):
        if name not in self.data:
            raise CredentialsError(f"Secret {name} does not exist: create it, or mend spec.metrics")
        return self.data[name]


def ref(name, key):
    return {"name": name, "key": key}


def metrics(url, **access):
    return make_spec(url, rules=[], access=access).metrics


async def asked(target):
    client = PrometheusClient(target)
    try:
        return await asyncio.to_thread(client.query, "up", 1.0, 5.0)
    finally:
        client.close()


async def test_a_certificate_of_ones_own_authority_is_trusted_and_no_other(certificates):
    pem = certificates[1].read_bytes()
    async with prometheus(certificates) as (_, url):
        trusted = await targets_of(metrics(url, tls={"caSecretRef": ref("ca", "ca.crt")}), Secrets(ca={"ca.crt": pem}))
        assert await asked(trusted[""])
        with pytest.raises(OutageError, match=r"TLS: .*caSecretRef"):
            await asked(Target(url))


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
async def test_a_certificate_may_go_unchecked_when_the_resource_says_so(certificates):
    async with prometheus(certificates) as (_, url):
        unchecked = await targets_of(metrics(url, tls={"insecureSkipVerify": True}), NoSecrets())
        assert await asked(unchecked[""])


async def test_a_certificate_for_another_host_is_refused(certificates):
    async with prometheus(certificates) as (_, url):
        target = Target(url.replace("127.0.0.1", "localhost"), authorities=certificates[1].read_text())
        with pytest.raises(OutageError, match="TLS"):
            await asked(target)


async def test_token_and_tenant_are_sent_with_every_query_and_every_range():
    secrets = Secrets(prom={"token": f"{SECRET}\n".encode(), "tenant": b"team-a"})
    async with prometheus() as (server, url):
        spec = metrics(
            url,
            bearerTokenSecretRef=ref("prom", "token"),
            headers=[{"name": "X-Scope-OrgID", "secretRef": ref("prom", "tenant")}, {"name": "X-Who", "value": "us"}],
        )
        client = PrometheusClient((await targets_of(spec, secrets))[""])
        try:
            await asyncio.to_thread(client.query, "up", 1.0, 5.0)
            await asyncio.to_thread(client.query, "up" + " + up" * 200, 1.0, 5.0)
            with contextlib.suppress(OutageError):
                await asyncio.to_thread(client.query_range, "up", 1.0, 2.0, 1.0, 5.0)
        finally:
            client.close()
    assert len(server.seen) == 3
    for headers in server.seen:
        assert headers["Authorization"] == f"Bearer {SECRET}"
        assert (headers["X-Scope-OrgID"], headers["X-Who"]) == ("team-a", "us")


async def test_user_and_password_are_sent_as_basic_authentication():
    async with prometheus() as (server, url):
        access = {"username": "us", "passwordSecretRef": ref("prom", "password")}
        spec = metrics(url, basicAuth=access)
        await asked((await targets_of(spec, Secrets(prom={"password": b"p:w"})))[""])
    assert base64.b64decode(server.seen[0]["Authorization"].removeprefix("Basic ")) == b"us:p:w"


async def test_a_server_that_refuses_the_credentials_says_what_to_mend():
    async with prometheus() as (server, url):
        server.refuse = True
        with pytest.raises(OutageError, match=r"HTTP 401: .*metrics\.access"):
            await asked(Target(url))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "Secret prom does not exist"),
        ({"prom": {}}, "has no key token; it has none"),
        ({"prom": {"other": b""}}, "has no key token; it has other"),
        ({"prom": {"token": b"\xff\xfe"}}, "is not text"),
        ({"prom": {"token": b"a\nb"}}, "no text that a header can hold"),
        ({"prom": {"token": b""}}, "no text that a header can hold"),
        ({"prom": {"token": b"x" * 300_000}}, "at most 262144"),
    ],
)
async def test_credentials_that_are_missing_are_said_and_nothing_is_asked(data, words):
    async with prometheus() as (server, url):
        spec = make_spec(url, rules=[], access={"bearerTokenSecretRef": ref("prom", "token")})
        targets = await targets_of(spec.metrics, Secrets(**data))
        request = MetricRequest.of(
            "shop", "checkout", spec, None, frozenset({"a-1"}), frozenset({"b-1"}), targets=targets
        )
        sampler = PrometheusSampler()
        try:
            samples = await sampler.sample(request)
        finally:
            await sampler.close()
    (pair,) = [pair for key, pair in samples.readings.items() if key.what == REQUESTS]
    assert pair.canary.kind is ReadingKind.UNAVAILABLE
    assert words in pair.canary.message
    assert server.seen == []


async def test_a_bundle_that_is_none_is_said():
    spec = metrics("https://127.0.0.1:1", tls={"caSecretRef": ref("ca", "ca.crt")})
    for text in (b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        target = (await targets_of(spec, Secrets(ca={"ca.crt": text})))[""]
        assert "holds no certificate" in target.problem


def test_no_secret_is_shown_where_a_server_is_shown():
    target = Target("https://a", (("Authorization", SECRET),), authorities="PEM")
    assert SECRET not in repr(target)
    assert "PEM" not in repr(target)


async def test_rollouts_with_other_credentials_never_share_an_answer():
    async with prometheus() as (server, url):
        sampler = PrometheusSampler()
        spec = make_spec(url, rules=[])
        try:
            for tenant in ("a", "b"):
                targets = {"": Target(url, (("X-Scope-OrgID", tenant),))}
                for name in ("one", "two"):
                    sets = (frozenset({"checkout-6b7f9c"}), frozenset({"checkout-canary-7d8e"}))
                    request = MetricRequest.of("shop", f"{name}-{tenant}", spec, None, *sets, targets=targets)
                    await sampler.sample(request)
        finally:
            await sampler.close()
    assert [headers["X-Scope-OrgID"] for headers in server.seen] == ["a", "b"]


async def test_a_rule_asks_the_server_it_names():
    async with prometheus() as (main, url), prometheus() as (other, other_url):
        rule = {"name": "mine", "query": "slo", "above": "100", "minRequests": 0, "server": "slow"}
        spec = make_spec(url, rules=[rule], servers=[{"name": "slow", "prometheus": other_url}])
        targets = await targets_of(spec.metrics, NoSecrets())
        request = MetricRequest.of("shop", "checkout", spec, spec.stages[0], frozenset(), frozenset(), targets=targets)
        sampler = PrometheusSampler()
        try:
            await sampler.sample(request)
        finally:
            await sampler.close()
    assert (len(main.seen), len(other.seen)) == (0, 1)  # nobody asks for requests: there are no pods yet


async def test_a_server_that_nobody_named_is_said():
    rule = {"name": "mine", "query": "slo", "above": "100", "minRequests": 0, "server": "slow"}
    spec = make_spec(rules=[rule], servers=[{"name": "slow", "prometheus": "http://127.0.0.1:9"}])
    request = make_request(spec)
    sampler = PrometheusSampler()
    try:
        readings = (await sampler.sample(request)).readings  # targets without credentials know the main server alone
    finally:
        await sampler.close()
    (pair,) = [pair for key, pair in readings.items() if key.own]
    assert pair.canary.kind is ReadingKind.BAD_QUERY
    assert "slow" in pair.canary.message
