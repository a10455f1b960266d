"""The configuration: YAML into typed settings, with every error at once as `file:line:column: key: what`.

`config/fairlead.yaml` documents each key with its default; scripts/check_config proves that it equals
this file. Durations and times are seconds, sizes are octets. A key without a value keeps its default.
Under systemd a credential named `spool.key` or `dkim.key` comes before the configured key file.
"""

import contextlib
import datetime as dt
import ipaddress
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    StrictBool,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from mta.mail.address import a_label, is_domain, parse_mailbox
from mta.marks import MarkedYaml
from mta.sizes import SIZE, octets_of

USUAL_FILE = Path("/etc/fairlead/fairlead.yaml")
_HOST = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.%]*")
_UNIX_PATH_LIMIT = 107  # sockaddr_un


class ConfigError(Exception):
    """The configuration cannot be used. `problems` has one line for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


_LONGEST_HOST = 253  # RFC 1035 2.3.4
# The warm-up plan `gentle`: each day half as much again as the day before, at first twice as much
GENTLE = (50, 100, 200, 400, 700, 1000, 1500, 2500, 4000, 6000, 9000, 14_000, 20_000, 30_000, 50_000, 75_000)
DEFAULT_POOL = "default"


class HostPort(BaseModel):
    """An IP socket address."""

    model_config = ConfigDict(frozen=True)
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixPath(BaseModel):
    """A unix socket address."""

    model_config = ConfigDict(frozen=True)
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


def _host_port(value: object) -> object:
    if isinstance(value, HostPort):
        return value
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not _HOST.fullmatch(host) or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port")
    return HostPort(host=host, port=int(port))


def next_hop(text: str, port: int) -> HostPort:
    """Read `host[:port]` as an operator names a relay; `port` where none is said. ValueError if it is none."""
    bare = text.count(":") > 1 and not text.startswith("[")  # an IPv6 address, of which the end is no port
    try:
        found = _host_port(f"[{text}]:{port}" if bare else text)
    except ValueError:
        found = _host_port(f"{text}:{port}")
    assert isinstance(found, HostPort)
    if not found.port:
        raise ValueError("must have a port from 1 to 65535")
    if len(found.host) > _LONGEST_HOST:
        raise ValueError(f"must have a host of {_LONGEST_HOST} characters at most")
    return found.model_copy(update={"host": found.host.lower()})


def _listen_address(value: object) -> object:
    if isinstance(value, UnixPath):
        return value
    if isinstance(value, str) and value.startswith("unix:/"):
        path = value.removeprefix("unix:")
        if len(os.fsencode(path)) > _UNIX_PATH_LIMIT:
            raise ValueError(f"is longer than the {_UNIX_PATH_LIMIT} octets that a unix socket's path can have")
        return UnixPath(path=path)
    try:
        return _host_port(value)
    except ValueError:
        raise ValueError("must be host:port or unix:/absolute/path") from None


def _network(value: object) -> object:
    if isinstance(value, str):
        return ipaddress.ip_network(value, strict=False)
    if not isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        raise ValueError("must be a network such as 192.0.2.0/24")  # noqa: TRY004 - pydantic reports ValueError alone
    return value


UNIX = "unix"


def _proxy(value: object) -> object:
    if value == UNIX:
        return value
    try:
        return _network(value)
    except ValueError:
        raise ValueError("must be a network such as 192.0.2.0/24, or unix") from None


def _octets(value: object) -> object:
    if isinstance(value, str):
        found = SIZE.fullmatch(value.strip())
        if found is None or found[2] == "%":
            raise ValueError("must be a size such as 500MiB")
        return octets_of(value, 0)
    return value


def _reserve(value: object) -> object:
    found = SIZE.fullmatch(str(value).strip())
    if found is None or (found[2] == "%" and float(found[1]) > 90):
        raise ValueError("must be a size such as 1GiB, or a share of the file system such as 10%")
    return value


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _domain_pattern(value: str) -> str:
    if value == "*":
        return value
    name = value.removeprefix("*.")
    return value[: len(value) - len(name)] + _domain(name, "must be a domain, *.domain or *")


def _domain(value: str, what: str = "must be a domain name") -> str:
    normal = a_label(value)
    if not is_domain(normal):
        raise ValueError(what)
    return normal


def _source_address(value: object) -> object:
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address(value) if isinstance(value, str) else None
        if found is not None and not (found.is_unspecified or found.is_multicast or "%" in str(found)):
            return str(found)
    raise ValueError("must be an address of this machine, such as 192.0.2.10")


def _date(value: object) -> object:
    """Only what is a date and nothing else: a number would be taken for seconds."""
    with contextlib.suppress(ValueError):
        if isinstance(value, str | dt.date):
            return dt.date.fromisoformat(str(value))
    raise ValueError("must be a date such as 2027-01-15")


def _plan(value: object) -> object:
    if value == "gentle":
        return GENTLE
    if not isinstance(value, list | tuple):
        raise ValueError("must be gentle, or a list of numbers of recipients")  # noqa: TRY004 - see _network
    return value


def _mailbox(value: str) -> str:
    if not is_domain(parse_mailbox(value).rpartition("@")[2]):
        raise ValueError("must be a mailbox at a domain, such as postmaster@example.com")
    return value


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError("must be an absolute path")
    return value


type_network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = Annotated[HostPort, BeforeValidator(_host_port)]
ListenAddress = Annotated[HostPort | UnixPath, BeforeValidator(_listen_address)]
Network = Annotated[type_network, BeforeValidator(_network)]
type_proxy = type_network | Literal["unix"]
Proxy = Annotated[type_proxy, BeforeValidator(_proxy)]
Octets = Annotated[int, BeforeValidator(_octets), Field(ge=0, strict=True)]
Reserve = Annotated[str | int, BeforeValidator(_reserve)]
Seconds = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]
Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
DomainName = Annotated[str, AfterValidator(_domain)]
Mailbox = Annotated[str, AfterValidator(_mailbox)]
DomainPattern = Annotated[str, AfterValidator(_domain_pattern)]
Place = Annotated[Path, AfterValidator(_absolute)]
SourceAddress = Annotated[str, BeforeValidator(_source_address)]
DayCap = Annotated[int, Field(ge=50, strict=True)]  # what one entry can have as recipients always goes out some day
Weight = Annotated[int, Field(ge=1, le=1000, strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Section(BaseModel):
    """A mapping of settings: unknown keys are errors, and all errors come at once."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @classmethod
    def _between(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Check rules between settings as given, of whatever type: yield the key and what is wrong."""
        del given
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _all_errors(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # A validator of mode "after" would keep silent as long as any single setting is wrong.
        found: list[InitErrorDetails] = []
        made: Self | None = None
        try:
            made = handler(given)
        except ValidationError as error:
            found = [_again(each) for each in error.errors(include_url=False)]
        if isinstance(given, Mapping):
            for key, what in cls._between(given):
                found.append(
                    {"type": PydanticCustomError("between", "{what}", {"what": what}), "loc": (key,), "input": 0}
                )
        if made is None or found:
            raise ValidationError.from_exception_data(cls.__name__, found)
        return made


class Listener(Section):
    """One SMTP socket. `submission` asks for AUTH before MAIL; `relay` trusts `networks` for `tenant`.

    Without `networks` a relay trusts certificates of `client_ca`: all, or those that name one of `client_names`.
    """

    address: ListenAddress
    kind: Literal["submission", "relay"]
    tls: Literal["none", "starttls", "implicit"] = "none"
    networks: tuple[Network, ...] = ()
    tenant: Name | None = None
    client_ca: Place | None = None
    client_names: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    proxy: tuple[Network, ...] = ()
    bare_newlines: Literal["refuse", "fix"] = "refuse"
    long_lines: Literal["pass", "refuse"] = "pass"

    @property
    def by_certificate(self) -> bool:
        """Whether a client's certificate decides if it may relay."""
        return self.client_ca is not None and not self.networks

    @classmethod
    def _between(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        if given.get("kind") == "relay":
            unix = str(given.get("address")).startswith("unix:")
            if given.get("tenant") is None:
                yield "tenant", "a relay listener needs a tenant"
            if not (given.get("networks") or given.get("client_ca") or unix):
                yield "networks", "a relay listener needs the networks it trusts, or client_ca"
            if given.get("client_ca") and (unix or given.get("tls", "none") == "none"):
                yield "client_ca", "is for relay listeners on the network with tls"
        elif given.get("kind") == "submission":
            for key in ("tenant", "networks", "client_ca"):
                if given.get(key):
                    yield key, "is for relay listeners: submission clients say who they are"
        if given.get("client_names") and not given.get("client_ca"):
            yield "client_names", "needs client_ca too"
        elif given.get("client_names") and given.get("networks"):
            yield "client_names", "counts for nothing beside networks, which let in whoever is in them"


def _together(given: Mapping[str, Any], one: str, other: str) -> Iterator[tuple[str, str]]:
    """Two settings that mean nothing alone."""
    for present, absent in ((one, other), (other, one)):
        if given.get(present) is not None and given.get(absent) is None:
            yield present, f"needs {absent} too"


class Tls(Section):
    """Our own certificate (PEM, chain included) for listeners with TLS, and likewise for HTTP."""

    certificate: Place | None = None
    key: Place | None = None

    @classmethod
    def _between(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        yield from _together(given, "certificate", "key")


class Http(Section):
    """The HTTP API, with TLS if there is a certificate. `trusted_proxies` are believed whom they have requests from."""

    address: ListenAddress = HostPort(host="127.0.0.1", port=8025)
    tls: Tls = Tls()
    trusted_proxies: tuple[Proxy, ...] = ()


_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


class Dns(Section):
    """The resolvers to ask; none: those of /etc/resolv.conf. What they say of DNSSEC counts if `trust_ad` has all."""

    servers: tuple[Address, ...] = ()
    timeout: Seconds = 10.0
    trust_ad: tuple[Network, ...] = _LOOPBACK


class Retry(Section):
    """When a deferred recipient is tried again: intervals in turn, the last one over and over."""

    intervals: Annotated[tuple[Seconds, ...], Field(min_length=1)] = (30, 300, 1800, 7200, 18000)
    lifetime: Seconds = 72 * 3600.0
    jitter: Annotated[float, Field(ge=0, le=0.5, strict=True)] = 0.1
    delay_notice: Seconds = 4 * 3600.0


class Route(Section):
    """Next hops for recipient domains, in order of preference, instead of MX."""

    domains: Annotated[tuple[DomainPattern, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
    relay: Annotated[tuple[Address, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
    tls: Literal["none", "opportunistic", "require", "verify", "implicit"] = "opportunistic"
    username: Annotated[str, Field(min_length=1)] | None = None
    password_file: Place | None = None
    ca_file: Place | None = None

    @classmethod
    def _between(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        yield from _together(given, "username", "password_file")
        if given.get("ca_file") is not None and given.get("tls") not in ("verify", "implicit"):
            yield "ca_file", "needs tls: verify or implicit, which look at certificates"
        hops = _one_or_more(given.get("relay"))
        clear = given.get("tls", "opportunistic") in ("none", "opportunistic")
        away = isinstance(hops, list | tuple) and not all(_is_loopback(str(each)) for each in hops)
        if given.get("username") is not None and clear and away:
            yield "tls", "AUTH needs require, verify or implicit"


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class WarmUp(Section):
    """How many recipients of one provider a new source delivers to on each day since its first."""

    started_on: Annotated[dt.date, BeforeValidator(_date)]
    plan: Annotated[tuple[DayCap, ...], BeforeValidator(_plan), Field(min_length=1)] = GENTLE


class Source(Section):
    """A local address that attempts leave from, of one family or of each, and the name it says in EHLO."""

    name: Name
    address: Annotated[tuple[SourceAddress, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
    hostname: DomainName | None = None
    warm_up: WarmUp | None = None

    @classmethod
    def _between(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        families = [":" in each for each in _addresses(given.get("address"))]
        if len(families) > len(set(families)):
            yield "address", "can be one IPv4 and one IPv6 address: for more make more sources"


class Delivery(Section):
    """SMTP out. Time-outs are those of RFC 5321 4.5.3.2."""

    port: Port = 25
    connections: Count = 200
    connections_per_site: Count = 20
    deliveries_per_connection: Count = 1000
    idle: Seconds = 10.0
    shaping: Place | None = None
    ca_file: Place | None = None
    tls_memory: Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)] = 30 * 86400.0
    allow_private_targets: StrictBool = False
    connect_timeout: Seconds = 30.0
    greeting_timeout: Seconds = 300.0
    command_timeout: Seconds = 300.0
    data_timeout: Seconds = 120.0
    block_timeout: Seconds = 180.0
    final_timeout: Seconds = 600.0


class Sts(Section):
    """MTA-STS: the port of policy hosts, and the seconds that fetching a policy may take (RFC 8461 3.3)."""

    port: Port = 443
    timeout: Seconds = 60.0


class Limits(Section):
    """What one SMTP client, session or message may cost."""

    connections: Count = 1000
    connections_per_client: Count = 100
    recipients: Count = 1000
    size: Annotated[Octets, Field(ge=1024)] = 50 * (1 << 20)
    commands: Count = 100_000
    errors: Count = 20
    idle: Seconds = 300.0
    session: Seconds = 3600.0
    buffered: Annotated[Octets, Field(ge=1 << 20)] = 256 * (1 << 20)
    received: Count = 30
    hold: Annotated[Seconds, Field(ge=1, lt=1_000_000_000)] = 30 * 86400.0


class Roles(Section):
    """How many processes of the roles that can be several."""

    ingress: Count = 1
    http: Count = 1


class SpoolSettings(Section):
    """The durable store. Without `key_file` a key is made in state_dir/keys."""

    key_file: Place | None = None
    reserve: Reserve = "1GiB"
    map_size: Annotated[Octets, Field(ge=1 << 20)] = 1 << 40


class Capacity(Section):
    """When new mail is refused before the disk is full. Without `longest_wait` it is retry.lifetime."""

    headroom: Octets = 1 << 30
    longest_wait: Seconds | None = None


class Dkim(Section):
    """The private half that opens sealed DKIM keys; only the delivery role reads it. `delegate` is a zone of ours."""

    key_file: Place | None = None
    delegate: DomainName | None = None


class Arc(Section):
    """Sealing of mail that is passed on for others, with a key of `domain`: none without."""

    domain: DomainName | None = None
    trusted: Annotated[tuple[DomainName, ...], BeforeValidator(_one_or_more)] = ()

    @classmethod
    def _between(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        if given.get("domain") is not None and not given.get("trusted"):
            yield "domain", "needs trusted too"


class Tlsrpt(Section):
    """Reports of TLS sessions to the domains that want them (RFC 8460), if there is a `contact` for them."""

    contact: Mailbox | None = None
    organization: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    sender: Mailbox | None = None
    tenant: Name | None = None


class Log(Section):
    """Where to and how much is logged: standard error, as key=value or JSON."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section):
    """All settings. Made by `load`; frozen."""

    hostname: DomainName = Field(default_factory=socket.getfqdn)
    state_dir: Place = Path("/var/lib/fairlead")
    listeners: tuple[Listener, ...] = (
        Listener(address=HostPort(host="127.0.0.1", port=2525), kind="relay", networks=_LOOPBACK, tenant="default"),
        Listener(address=HostPort(host="127.0.0.1", port=2587), kind="submission"),
    )
    http: Http = Http()
    tls: Tls = Tls()
    dns: Dns = Dns()
    retry: Retry = Retry()
    routes: tuple[Route, ...] = ()
    sources: tuple[Source, ...] = ()
    pools: dict[Name, Annotated[dict[Name, Weight], Field(min_length=1)]] = Field(default_factory=dict)
    delivery: Delivery = Delivery()
    sts: Sts = Sts()
    limits: Limits = Limits()
    roles: Roles = Roles()
    spool: SpoolSettings = SpoolSettings()
    capacity: Capacity = Capacity()
    dkim: Dkim = Dkim()
    arc: Arc = Arc()
    tlsrpt: Tlsrpt = Tlsrpt()
    log: Log = Log()

    @classmethod
    def _between(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        listeners = given.get("listeners")
        listeners = listeners if isinstance(listeners, list | tuple) else ()
        with_tls = any(_part(each, "tls") in ("starttls", "implicit") for each in listeners)
        if with_tls and _part(given.get("tls"), "certificate") is None:
            yield "tls", "a listener with tls needs tls.certificate and tls.key"
        addresses = [str(_part(each, "address")) for each in (*listeners, given.get("http"))]
        for address in {each for each in addresses if addresses.count(each) > 1 and not each.endswith(":0")}:
            yield "listeners", f"{address} is given twice"
        yield from _sources_and_pools(given)

    @property
    def run_dir(self) -> Path:
        """Sockets and locks."""
        return self.state_dir / "run"

    @property
    def spool_dir(self) -> Path:
        """The LMDB environment."""
        return self.state_dir / "spool"

    @property
    def doorbell(self) -> Path:
        """The socket that wakes the delivery role."""
        return self.run_dir / "delivery.bell"

    @property
    def segment_dir(self) -> Path:
        """Event segments."""
        return self.state_dir / "events"

    @property
    def views_dir(self) -> Path:
        """Where the views of the log are."""
        return self.state_dir / "views"

    @property
    def spool_key_file(self) -> Path:
        """Keys that seal the spool."""
        return _credential("spool.key") or self.spool.key_file or self.state_dir / "keys" / "spool.key"

    @property
    def dkim_key_file(self) -> Path:
        """The key that opens sealed DKIM keys."""
        return _credential("dkim.key") or self.dkim.key_file or self.state_dir / "keys" / "dkim.key"

    @property
    def dkim_public_file(self) -> Path:
        """Its public half, enough to make DKIM keys; beside the folder of secrets, which units do not see."""
        return self.state_dir / "dkim.pub"


def _sources_and_pools(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    sources = given.get("sources")
    sources = sources if isinstance(sources, list | tuple) else ()
    names = [name for each in sources if isinstance(name := _part(each, "name"), str)]
    addresses = [address for each in sources for address in _addresses(_part(each, "address"))]
    for known in (names, addresses):
        for each in sorted({each for each in known if known.count(each) > 1}):
            yield "sources", f"{each} is given twice"
    pools = given.get("pools")
    pools = pools if isinstance(pools, Mapping) else {}
    if pools and DEFAULT_POOL not in pools:
        yield "pools", f"needs one named {DEFAULT_POOL}, for tenants that have none of their own"
    for pool, members in pools.items():
        for each in members if isinstance(members, Mapping) else ():
            if each not in names:
                yield "pools", f"{pool}: there is no source {each}"


def _addresses(value: object) -> Iterator[str]:
    """Those of one address or several that are some, as they are written usually."""
    several = _one_or_more(value)
    for each in several if isinstance(several, list | tuple) else ():
        with contextlib.suppress(ValueError):
            yield str(ipaddress.ip_address(each))


def _part(section: object, key: str) -> object:
    return section.get(key) if isinstance(section, Mapping) else getattr(section, key, None)


def _credential(name: str) -> Path | None:
    """Find what systemd handed to this unit by LoadCredential=."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, name) if folder else None
    return path if path is not None and path.exists() else None


def _again(error: ErrorDetails) -> InitErrorDetails:
    """Make an error ready to be raised once more from the section around it."""
    return {
        "type": PydanticCustomError(error["type"], "{what}", {"what": error["msg"].removeprefix("Value error, ")}),
        "loc": error["loc"],
        "input": error["input"],
    }


_WORDS = {
    "extra_forbidden": "no such setting",
    "missing": "is required",
    "model_type": "must be a mapping of settings",
    "path_type": "must be an absolute path",
    "too_long": "has too many",
    "too_short": "needs at least one",
    "tuple_type": "must be a list",
}


AnySection = TypeVar("AnySection", bound=Section)


def parse(text: str, name: str) -> Config:
    """Read the configuration from YAML; ConfigError with all problems. `name` is what problems call the file."""
    return parse_section(Config, text, name)


def parse_section(section: type[AnySection], text: str, name: str) -> AnySection:
    """Read the settings of any such file from YAML, as `parse` does."""
    marked = MarkedYaml(text)
    problems = set(marked.problems)
    if not isinstance(marked.values, dict):
        problems.add(marked.problem((), "must be a mapping of settings"))
    else:
        try:
            found = section.model_validate(marked.values)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            inside = {each["loc"][:-1] for each in errors}
            for each in errors:
                if each["type"] == "too_short" and each["loc"] in inside:
                    continue  # what is wrong in it was left out before it was counted
                what = _WORDS.get(each["type"]) or each["msg"].replace("Input should be", "must be")
                problems.add(marked.problem(each["loc"], what))
    if problems:
        raise ConfigError([f"{name}:{at.line}:{at.column}: {what}" for at, what in sorted(problems)])
    return found


def load(path: Path) -> Config:
    """Read a configuration file; ConfigError when it cannot be read or used."""
    return parse(read(path), str(path))


def read(path: Path) -> str:
    """Read a file of settings; ConfigError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError([f"{path}:1:1: cannot be read: {reason}"]) from None


def find(given: str | None) -> Path | None:
    """Name the configuration file: as given, FAIRLEAD_CONFIG, or the usual place if there is one."""
    named = given or os.environ.get("FAIRLEAD_CONFIG")
    if named:
        return Path(named)
    return USUAL_FILE if USUAL_FILE.exists() else None
