"""The configuration: YAML into typed settings, with every error at once as `file:line:column: key: what`.

`config/fairlead.yaml` documents each key with its default; scripts/check_config proves that it equals
this file. Durations and times are seconds, sizes are octets.
"""

import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mta.mail.address import a_label, is_domain

SAMPLE = "/etc/fairlead/fairlead.yaml"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|KiB|MiB|GiB|TiB|%)")
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


class ConfigError(Exception):
    """The configuration cannot be used. `problems` has one line for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


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
    if not isinstance(value, str):
        return value
    host, colon, port = value.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not port.isascii() or not port.isdigit() or not int(port) < 65536:
        raise ValueError("must be host:port")
    return HostPort(host=host, port=int(port))


def _listen_address(value: object) -> object:
    if isinstance(value, str) and value.startswith("unix:"):
        if not value.startswith("unix:/"):
            raise ValueError("must be host:port or unix:/absolute/path")
        return UnixPath(path=value.removeprefix("unix:"))
    return _host_port(value)


def _network(value: object) -> object:
    if isinstance(value, str):
        return ipaddress.ip_network(value, strict=False)
    return value


def _octets(value: object) -> object:
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if found is None or found[2] == "%":
            raise ValueError("must be a size such as 500MiB")
        return int(float(found[1]) * _UNITS[found[2]])
    return value


def _reserve(value: object) -> object:
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if found is None or (found[2] == "%" and float(found[1]) > 90):
            raise ValueError("must be a size such as 1GiB, or a share of the file system such as 10%")
    return value


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _domain_pattern(value: str) -> str:
    if value == "*":
        return value
    name = value.removeprefix("*.")
    normal = a_label(name)
    if not is_domain(normal):
        raise ValueError("must be a domain, *.domain or *")
    return value[: len(value) - len(name)] + normal


type_network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = Annotated[HostPort, BeforeValidator(_host_port)]
ListenAddress = Annotated[HostPort | UnixPath, BeforeValidator(_listen_address)]
Network = Annotated[type_network, BeforeValidator(_network)]
Octets = Annotated[int, BeforeValidator(_octets), Field(ge=0)]
Reserve = Annotated[str | int, BeforeValidator(_reserve)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
DomainPattern = Annotated[str, BeforeValidator(_domain_pattern)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Listener(_Section):
    """One SMTP socket. `submission` asks for AUTH before MAIL; `relay` trusts `networks` for `tenant`."""

    address: ListenAddress
    kind: Literal["submission", "relay"]
    tls: Literal["none", "starttls", "implicit"] = "none"
    networks: tuple[Network, ...] = ()
    tenant: Name | None = None
    proxy: tuple[Network, ...] = ()
    bare_newlines: Literal["refuse", "fix"] = "refuse"
    long_lines: Literal["pass", "refuse"] = "pass"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "relay":
            if self.tenant is None:
                raise ValueError("a relay listener needs a tenant")
            if not self.networks and isinstance(self.address, HostPort):
                raise ValueError("a relay listener needs the networks it trusts")
        elif self.tenant is not None or self.networks:
            raise ValueError("tenant and networks are for relay listeners")
        return self


class Http(_Section):
    """The HTTP API."""

    address: ListenAddress = HostPort(host="127.0.0.1", port=8025)


class Tls(_Section):
    """Our own certificate (PEM, chain included) for listeners with TLS."""

    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        return self


class Dns(_Section):
    """The resolvers to ask; none: those of /etc/resolv.conf."""

    servers: tuple[Address, ...] = ()
    timeout: Seconds = 10.0


class Retry(_Section):
    """When a deferred recipient is tried again: intervals in turn, the last one over and over."""

    intervals: Annotated[tuple[Seconds, ...], Field(min_length=1)] = (30, 300, 1800, 7200, 18000)
    lifetime: Seconds = 72 * 3600.0
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    delay_notice: Seconds = 4 * 3600.0


class Route(_Section):
    """Next hops for recipient domains, in order of preference, instead of MX."""

    domains: Annotated[tuple[DomainPattern, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
    relay: Annotated[tuple[Address, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
    tls: Literal["none", "opportunistic", "require", "verify", "implicit"] = "opportunistic"
    username: str | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together")
        if self.username is not None and self.tls in ("none", "opportunistic"):
            local = all(_is_loopback(each.host) for each in self.relay)
            if not local:
                raise ValueError("AUTH needs tls: require, verify or implicit")
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Delivery(_Section):
    """SMTP out. Time-outs are those of RFC 5321 4.5.3.2."""

    port: Annotated[int, Field(ge=1, le=65535)] = 25
    connections: Count = 200
    connections_per_site: Count = 20
    deliveries_per_connection: Count = 1000
    idle: Seconds = 10.0
    ca_file: Path | None = None
    allow_private_targets: bool = False
    connect_timeout: Seconds = 30.0
    greeting_timeout: Seconds = 300.0
    command_timeout: Seconds = 300.0
    data_timeout: Seconds = 120.0
    block_timeout: Seconds = 180.0
    final_timeout: Seconds = 600.0


class Limits(_Section):
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


class Roles(_Section):
    """How many processes of the roles that can be several."""

    ingress: Count = 1
    http: Count = 1


class SpoolSettings(_Section):
    """The durable store. Without `key_file` a key is made in state_dir/keys."""

    key_file: Path | None = None
    reserve: Reserve = "1GiB"
    map_size: Annotated[Octets, Field(ge=1 << 20)] = 1 << 40


class Dkim(_Section):
    """The private half that opens sealed DKIM keys; only the delivery role reads it."""

    key_file: Path | None = None


class Log(_Section):
    """Where to and how much is logged: standard error, as key=value or JSON."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


class Config(_Section):
    """All settings. Made by `load`; frozen."""

    hostname: Annotated[str, Field(min_length=1, max_length=253)] = Field(default_factory=socket.getfqdn)
    state_dir: Path = Path("/var/lib/fairlead")
    listeners: tuple[Listener, ...] = (
        Listener(address=HostPort(host="127.0.0.1", port=2525), kind="relay", networks=_LOOPBACK, tenant="default"),
        Listener(address=HostPort(host="127.0.0.1", port=2587), kind="submission"),
    )
    http: Http = Http()
    tls: Tls = Tls()
    dns: Dns = Dns()
    retry: Retry = Retry()
    routes: tuple[Route, ...] = ()
    delivery: Delivery = Delivery()
    limits: Limits = Limits()
    roles: Roles = Roles()
    spool: SpoolSettings = SpoolSettings()
    dkim: Dkim = Dkim()
    log: Log = Log()

    @model_validator(mode="after")
    def _certificate(self) -> Self:
        if self.tls.certificate is None and any(each.tls != "none" for each in self.listeners):
            raise ValueError("a listener with tls needs tls.certificate and tls.key")
        return self

    @property
    def run_dir(self) -> Path:
        """Sockets and locks."""
        return self.state_dir / "run"

    @property
    def spool_dir(self) -> Path:
        """The LMDB environment."""
        return self.state_dir / "spool"

    @property
    def segment_dir(self) -> Path:
        """Event segments."""
        return self.state_dir / "events"

    @property
    def spool_key_file(self) -> Path:
        """Keys that seal the spool."""
        return self.spool.key_file or self.state_dir / "keys" / "spool.key"

    @property
    def dkim_key_file(self) -> Path:
        """The key that opens sealed DKIM keys."""
        return self.dkim.key_file or self.state_dir / "keys" / "dkim.key"


class _Marks:
    """Where each key path of a YAML document stands."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.at: dict[tuple[str | int, ...], tuple[int, int]] = {}
        self.problems: list[str] = []

    def problem(self, path: tuple[str | int, ...], what: str) -> str:
        known = path
        while known and known not in self.at:
            known = known[:-1]
        line, column = self.at.get(known, (1, 1))
        key = ".".join(str(part) for part in path)
        return f"{self.name}:{line}:{column}: {key + ': ' if key else ''}{what}"

    def read(self, node: yaml.Node, path: tuple[str | int, ...] = ()) -> Any:
        self.at.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, number)) for number, item in enumerate(node.value)]
        return _SCALARS.construct_object(node)

    def _mapping(self, node: yaml.MappingNode, path: tuple[str | int, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*path, key)
            mark = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if key in found:
                self.problems.append(f"{self.name}:{mark[0]}:{mark[1]}: {'.'.join(map(str, here))}: given twice")
                continue
            self.at[here] = mark
            found[key] = self.read(value_node, here)
        return found


_SCALARS = yaml.SafeLoader("")


def parse(text: str, name: str) -> Config:
    """Read settings from YAML; ConfigError with all problems. `name` is what problems call the file."""
    marks = _Marks(name)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = marks.read(node) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise ConfigError([f"{name}:{at}: {error.problem or error.context}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError([f"{name}:1:1: not YAML: {str(error).splitlines()[0]}"]) from None
    if not isinstance(values, dict):
        raise ConfigError([f"{name}:1:1: must be a mapping of settings"])
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(marks.problems + _problems(error, marks)) from None
    if marks.problems:
        raise ConfigError(marks.problems)
    return config


def _problems(error: ValidationError, marks: _Marks) -> list[str]:
    found: dict[str, None] = {}
    for each in error.errors():
        path = tuple(part for part in each["loc"] if part not in ("HostPort", "UnixPath"))
        what = each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            what = "no such setting"
        found[marks.problem(path, what)] = None
    return list(found)


def load(path: Path) -> Config:
    """Read a configuration file; ConfigError when it cannot be read or used."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError([f"{path}:1:1: cannot be read: {reason}"]) from None
    return parse(text, str(path))


def find(given: str | None) -> Path | None:
    """Name the configuration file: as given, FAIRLEAD_CONFIG, or the usual place if there is one."""
    named = given or os.environ.get("FAIRLEAD_CONFIG")
    if named:
        return Path(named)
    usual = Path(SAMPLE)
    return usual if usual.exists() else None
