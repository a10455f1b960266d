"""`fairlead config`: is the configuration right, and is what it names there?"""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import click

from mta.certificate import CertificateError, OwnCertificate
from mta.cli.output import Printer
from mta.cli.session import become_owner, configuration, json_option
from mta.config import Config, ConfigError
from mta.delivery.sources import trouble_of
from mta.queue import shaping


@click.group()
def config() -> None:
    """Check the configuration."""


@config.command()
@json_option
def check(as_json: bool) -> None:
    """Name every mistake in the configuration, and every file and address it names that cannot be used."""
    settings = configuration()
    if settings.state_dir.exists():  # otherwise there is no owner yet, and a check makes nothing
        become_owner(settings.state_dir)
    found = list(file_problems(settings))
    if found:
        raise ConfigError(found)
    Printer(as_json=as_json).record({"ok": True, "hostname": settings.hostname}, "the configuration is good")


def file_problems(settings: Config) -> Iterator[str]:
    """Open what the settings name, as the user that the relay runs as."""
    place = next(each for each in (settings.state_dir, *settings.state_dir.parents) if each.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        yield f"state_dir: {settings.state_dir}: {place} is not a directory that can be written to"
    for setting, tls, listeners in (("tls", settings.tls, settings.listeners), ("http.tls", settings.http.tls, ())):
        try:
            OwnCertificate(tls, listeners, setting)
        except CertificateError as error:
            yield str(error)
    yield from _no_authorities("delivery.ca_file", settings.delivery.ca_file)
    yield from _unusable_addresses(settings)
    if settings.delivery.shaping is not None:
        try:
            shaping.load(settings.delivery.shaping)
        except ConfigError as error:
            yield from error.problems
    for number, route in enumerate(settings.routes):
        yield from _no_authorities(f"routes.{number}.ca_file", route.ca_file)
        if route.password_file is not None:
            yield from _unreadable(f"routes.{number}.password_file", route.password_file)
    for key, path in (("spool.key_file", settings.spool.key_file), ("dkim.key_file", settings.dkim.key_file)):
        if path is not None and path.exists():  # it is made on first use
            yield from _unreadable(key, path)


def _no_authorities(key: str, path: Path | None) -> Iterator[str]:
    if path is not None:
        try:
            ssl.create_default_context(cafile=str(path))
        except (OSError, ssl.SSLError) as error:
            reason = "not certificates (PEM)" if isinstance(error, ssl.SSLError) else error.strerror
            yield f"{key}: {path}: {reason}"


def _unusable_addresses(settings: Config) -> Iterator[str]:
    for number, source in enumerate(settings.sources):
        for address in source.address:
            if why := trouble_of(address):
                yield f"sources.{number}.address: {address}: {why}"


def _unreadable(key: str, path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        yield f"{key}: {path}: {error.strerror}"
