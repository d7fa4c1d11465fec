"""``spec.metrics``: where the numbers come from, who may read them, and which series are whose."""

from collections import Counter
from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, StrictBool, ValidationInfo, model_validator

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.fields import DnsLabel, DnsName, LabelName, SafeValue, SpecModel, Text, Url
from canary_rollout.model.headers import CREDENTIALS, SentHeaderName, SentHeaderText, is_credential
from canary_rollout.model.stored import is_stored
from canary_rollout.model.units import Duration, SecondOrMore

SOURCES: Final = (
    "app",
    "agent",
    "ingress-nginx",
    "istio",
    "envoy",
    "traefik",
    "haproxy",
    "linkerd",
    "otel",
    "nginx-log",
)
"""Ready-made sources; a test holds them against the files of the metrics room."""

MOST_SERVERS: Final = 8
MOST_HEADERS: Final = 16
MOST_PRESET_SETS: Final = 8
LEAST_OF_TENANTS: Final = 300.0
"""Seconds of stable's past below which the tenants of a sticky stage have none that is worth something."""

SourceName = Annotated[
    str,
    Text(
        rf"^({'|'.join(SOURCES)}|[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?)$",
        127,
        f"a source of metrics: name one of {', '.join(SOURCES)}, or one of a preset set of your own as set/source",
    ),
]
SecretKeyName = Annotated[
    str, Text(r"^[-._A-Za-z0-9]+$", 253, 'a key of a Secret: use letters, digits, "-", "_" and "."')
]
UserName = Annotated[str, Text(r"^[!-9;-~]+$", 128, 'a user name: use printable ASCII without spaces and without ":"')]


class Arms(SpecModel):
    """Which series belong to which version."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(
                "self.by == 'label' ? has(self.label) && has(self.stable) && has(self.canary) "
                ": !has(self.label) && !has(self.stable) && !has(self.canary)",
                "by: label needs label, stable and canary; by: pod and by: service take none of them",
            ),
            Rule(
                "!has(self.stable) || !has(self.canary) || self.stable != self.canary",
                "the label has different values on stable and canary: change one",
            ),
        )
    )

    by: Literal["pod", "service", "label"] = Field(
        "pod",
        description="pod: the names of each Deployment's pods. service: the Services' names. label: a label of your own.",
    )
    label: LabelName | None = Field(None, description="With by: label, the label that tells the versions apart.")
    stable: SafeValue | None = Field(None, description="With by: label, its value on stable.")
    canary: SafeValue | None = Field(None, description="With by: label, its value on the canary.")

    @model_validator(mode="after")
    def _label_needs_values(self) -> Self:
        given = [value for value in (self.label, self.stable, self.canary) if value is not None]
        if len(given) != (3 if self.by == "label" else 0):
            raise ValueError("by: label needs label, stable and canary; by: pod and by: service take none of them")
        if self.stable is not None and self.stable == self.canary:
            raise ValueError("the label has different values on stable and canary: change one")
        return self


class SecretKey(SpecModel):
    """One key of a Secret in the CanaryRollout's namespace."""

    name: DnsName = Field(description="Name of the Secret, in the CanaryRollout's own namespace.")
    key: SecretKeyName = Field(description="Key in its data.")


_IN_PLAIN_SIGHT: Final = (
    "the value of this header is a secret, and everybody who reads the resource reads it: put it into a Secret and name "
    "secretRef instead of value (for Authorization: bearerTokenSecretRef or basicAuth)"
)
_TWO_CREDENTIALS: Final = (
    "Authorization is what bearerTokenSecretRef and basicAuth send: remove the header, or the other one"
)
_TWICE: Final = "two headers have the same name (their case does not count), and only one would be sent: remove one"


class Header(SpecModel):
    """A header sent with every query."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(cel.only_one("value", "secretRef"), "a header names exactly one of value and secretRef"),
            Rule(
                f"!has(self.value) || !self.name.matches({cel.literal(CREDENTIALS)})", _IN_PLAIN_SIGHT, field=".value"
            ),
        )
    )

    name: SentHeaderName = Field(description="Name of the header, such as X-Scope-OrgID.")
    value: SentHeaderText | None = Field(
        None, description="Its value, readable by everybody who reads the resource; never a secret."
    )
    secret_ref: SecretKey | None = Field(None, description="Where its value is, if not everybody is to read it.")

    @model_validator(mode="after")
    def _one_value(self, info: ValidationInfo) -> Self:
        if (self.value is None) == (self.secret_ref is None):
            raise ValueError("a header names exactly one of value and secretRef")
        if self.value is not None and is_credential(self.name) and not is_stored(info.context):
            raise ValueError(_IN_PLAIN_SIGHT)
        return self


class BasicAuth(SpecModel):
    """User name and password."""

    username: UserName = Field(description="The user's name.")
    password_secret_ref: SecretKey = Field(description="Where the password is.")


class Tls(SpecModel):
    """How the server's certificate is checked."""

    ca_secret_ref: SecretKey | None = Field(
        None, description="Certificates (PEM) of the authorities to trust. Default: the system's."
    )
    insecure_skip_verify: StrictBool = Field(
        default=False, description="true: any certificate is taken. Whoever is in between may then forge every number."
    )


class Access(SpecModel):
    """What a Prometheus server wants to see before it answers. Secrets are read again every minute."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(
                "!has(self.bearerTokenSecretRef) || !has(self.basicAuth)",
                "name at most one of bearerTokenSecretRef and basicAuth: both are sent in the same header",
            ),
            Rule(
                "!has(self.headers) || !has(self.bearerTokenSecretRef) && !has(self.basicAuth) || "
                "!self.headers.exists(header, header.name.lowerAscii() == 'authorization')",
                _TWO_CREDENTIALS,
                field=".headers",
            ),
            Rule(
                "!has(self.headers) || self.headers.all(a, "
                "self.headers.exists_one(b, b.name.lowerAscii() == a.name.lowerAscii()))",
                _TWICE,
                field=".headers",
            ),
        )
    )

    tls: Tls = Field(default_factory=Tls, description="How the server's certificate is checked.")
    bearer_token_secret_ref: SecretKey | None = Field(None, description="Where a bearer token is.")
    basic_auth: BasicAuth | None = Field(None, description="User name and password.")
    headers: tuple[Header, ...] = Field(
        (), max_length=MOST_HEADERS, description="More headers, such as X-Scope-OrgID of Mimir, Thanos and Cortex."
    )

    @model_validator(mode="after")
    def _one_authorization(self, info: ValidationInfo) -> Self:
        if self.bearer_token_secret_ref is not None and self.basic_auth is not None:
            raise ValueError("name at most one of bearerTokenSecretRef and basicAuth: both are sent in the same header")
        if is_stored(info.context):
            return self
        names = [header.name.lower() for header in self.headers]
        if "authorization" in names and (self.bearer_token_secret_ref or self.basic_auth):
            raise ValueError(_TWO_CREDENTIALS)
        if len(set(names)) != len(names):
            raise ValueError(_TWICE)
        return self

    def secrets(self) -> frozenset[str]:
        """Return the names of the Secrets that are read."""
        keys = [self.tls.ca_secret_ref, self.bearer_token_secret_ref, *(header.secret_ref for header in self.headers)]
        keys.append(self.basic_auth.password_secret_ref if self.basic_auth is not None else None)
        return frozenset(key.name for key in keys if key is not None)


class Server(SpecModel):
    """Another Prometheus, for rules and gates that name it."""

    name: DnsLabel = Field(description="What rules and gates call it (server: NAME).")
    prometheus: Url = Field(description="Its address. No credentials in it.")
    access: Access = Field(default_factory=Access, description="What it wants to see before it answers.")


class Metrics(SpecModel):
    """Where the numbers come from."""

    prometheus: Url = Field(
        description="Address of Prometheus, such as http://prometheus.monitoring:9090. No credentials in it."
    )
    access: Access = Field(default_factory=Access, description="What it wants to see before it answers.")
    servers: tuple[Server, ...] = Field(
        (),
        max_length=MOST_SERVERS,
        description="More servers, for rules and gates that name one.",
        json_schema_extra=cel.rules(
            Rule(
                "self.all(a, self.exists_one(b, b.name == a.name))",
                "two servers have the same name, and rules speak of servers by name: rename one",
            )
        ),
    )
    interval: SecondOrMore = Field(default=10.0, description="Time between two evaluations.")
    source: SourceName = Field(
        "app",
        description="Whose series the presets read. app: http_requests_total and http_request_duration_seconds. agent: "
        "the nginx agent's counters. For the others see docs/presets.md.",
    )
    presets: tuple[DnsName, ...] = Field(
        (),
        max_length=MOST_PRESET_SETS,
        description="ConfigMaps with preset sets of your own, in the CanaryRollout's namespace (docs/presets.md).",
    )
    arms: Arms = Field(default_factory=Arms, description="Which series belong to which version.")
    port: SafeValue = Field(
        "80", description="Port of the Services (number or name), where a proxy's series name it beside the Service."
    )
    window: SecondOrMore = Field(
        default=300.0, description="Time range that rates and quantiles are taken over where a rule names none."
    )
    status_label: LabelName = Field(
        "status", description="Label that holds the HTTP status (some libraries call it code)."
    )
    timeout: SecondOrMore = Field(default=5.0, description="Longest wait for one query.")
    lag: Duration | None = Field(
        None,
        description="How far behind the present the comparison with stable reads, so that late scrapes are in: one "
        "scrape interval. Default: interval.",
    )
    history: Duration = Field(
        default=21600.0, description="How much of stable's past the comparison begins with, 24h at most; 0s: none."
    )

    @model_validator(mode="after")
    def _servers_have_unique_names(self) -> Self:
        twice = [name for name, count in Counter(server.name for server in self.servers).items() if count > 1]
        if twice:
            raise ValueError(f"servers have unique names; found twice: {', '.join(sorted(twice))}: rename one")
        return self

    @property
    def comparison_lag(self) -> float:
        """Seconds behind the present at which the comparison reads."""
        return self.interval if self.lag is None else self.lag
