"""Our own certificate: what cannot be used is named, what changes is used for new sessions, ciphers are good."""

import asyncio
import errno
import shutil
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mta.certificate import CertificateError, OwnCertificate, server_context
from mta.config import Tls
from tests.unit.ingress.authority import Authority, Pair
from tests.unit.ingress.conftest import listener


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def files(authority, tmp_path):
    """The files in use, which tests replace."""
    files = Tls(certificate=tmp_path / "chain.pem", key=tmp_path / "key.pem")
    install(authority.serve("first"), files)
    return files


@pytest.fixture
def server_tls(files):
    return files


def install(pair: Pair, files: Tls) -> None:
    """Replace the files as a renewal does: copied aside, then renamed."""
    for source, target in ((pair.certificate, files.certificate), (pair.key, files.key)):
        shutil.copy(source, f"{target}.new")
        Path(f"{target}.new").rename(target)


async def shown(door, authority: Authority, number: int = 0) -> bytes:
    """Do a handshake; return the certificate that is shown."""
    context = ssl.create_default_context(cafile=authority.file)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.ports[number], ssl=context)
    assert (await reader.readline()).startswith(b"220 ")
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(found).encode()


def look(door, times: int = 2) -> None:
    """Let the ingress look as often as it would in as many seconds."""
    for _ in range(times):
        door.ingress.sweep(asyncio.get_running_loop().time())


async def test_a_renewed_certificate_is_for_new_sessions_and_drops_none(serve, authority, files, caplog):
    door = await serve(listener(tls="starttls"), listener(tls="implicit"))
    old = await door.greeted()
    assert (await old.ask(b"STARTTLS")).startswith(b"220 ")
    await old.start_tls(ssl.create_default_context(cafile=authority.file))
    first, second = await shown(door, authority, 1), authority.serve("second")
    install(second, files)
    look(door)
    assert await shown(door, authority, 1) == second.certificate.read_bytes() != first
    assert (await old.ask(b"EHLO client.test")).startswith(b"250-")
    assert caplog.text.count("certificate=reloaded") == 1
    look(door, 5)
    assert caplog.text.count("certificate=") == 1


async def test_files_that_do_not_belong_together_are_refused_once_and_the_old_ones_stay(
    serve, authority, files, caplog
):
    door = await serve(listener(tls="implicit"))
    first = await shown(door, authority)
    second, third = authority.serve("second"), authority.serve("third")
    install(Pair(second.certificate, third.key), files)
    look(door, 5)
    assert await shown(door, authority) == first
    (refused,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert refused.getMessage() == (
        f"certificate=refused, the one before stays in use: "
        f"tls: {files.certificate} with {files.key}: KEY_VALUES_MISMATCH"
    )
    files.key.unlink()
    look(door, 5)
    assert caplog.records[-1].getMessage().endswith(f"tls.key: {files.key}: No such file or directory")
    install(third, files)
    look(door)
    assert await shown(door, authority) == third.certificate.read_bytes()


async def test_files_that_cannot_be_read_for_a_while_are_read_when_they_can(
    serve, authority, files, caplog, monkeypatch
):
    """Red when they are read again only when they change: permissions that are put right change no file."""
    door = await serve(listener(tls="implicit"))
    second = authority.serve("second")
    install(second, files)

    def refused(_: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Path, "read_bytes", refused)
        look(door, 5)
    (error,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert error.getMessage().endswith(f"tls.certificate: {files.certificate}: Permission denied")
    look(door, 1)
    assert await shown(door, authority) == second.certificate.read_bytes()
    look(door, 5)
    assert caplog.text.count("certificate=reloaded") == 1


async def test_files_are_left_alone_while_they_are_being_replaced(serve, authority, files, caplog):
    """Red when they are read at the first look that sees a change: the key has not come yet."""
    door = await serve(listener(tls="implicit"))
    second = authority.serve("second")
    shutil.copy(second.certificate, files.certificate)
    look(door, 1)
    shutil.copy(second.key, files.key)
    look(door)
    assert await shown(door, authority) == second.certificate.read_bytes()
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []


async def test_an_authority_of_clients_is_read_again_too(serve, authority, files, tmp_path):
    clients = tmp_path / "clients.pem"
    shutil.copy(authority.file, clients)
    door = await serve(listener(tls="implicit", client_ca=str(clients)))
    context = door.ingress.intake.tls.context(door.ingress.bound[0][0].client_ca)
    assert len(context.get_ca_certs()) == 1
    other = tmp_path / "other"
    other.mkdir()
    clients.write_bytes(authority.file.read_bytes() + Authority(other).file.read_bytes())
    look(door)
    assert len(door.ingress.intake.tls.context(door.ingress.bound[0][0].client_ca).get_ca_certs()) == 2


def test_what_cannot_be_used_is_named_with_the_reason(authority, tmp_path):
    ours, other = authority.serve("ours"), authority.serve("other")
    locked, missing, garbage = tmp_path / "locked.key", tmp_path / "missing.pem", tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    damaged = tmp_path / "damaged.pem"
    damaged.write_bytes(ours.key.read_bytes()[:100])
    locked.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for certificate, key, client_ca, why in (
        (missing, ours.key, None, f"tls.certificate: {missing}: No such file or directory"),
        (ours.certificate, missing, None, f"tls.key: {missing}: No such file or directory"),
        (ours.certificate, other.key, None, "KEY_VALUES_MISMATCH"),
        (ours.certificate, locked, None, f" with {locked}: the key has a passphrase"),
        (garbage, ours.key, None, f"tls.certificate: {garbage}: not PEM"),
        (ours.certificate, garbage, None, f"tls.key: {garbage}: not PEM"),
        (ours.certificate, damaged, None, f"tls: {ours.certificate} with {damaged}: damaged"),
        (ours.certificate, ours.key, missing, f"client_ca: {missing}: No such file or directory"),
        (ours.certificate, ours.key, garbage, f"client_ca: {garbage}: not PEM"),
    ):
        with pytest.raises(CertificateError) as refused:
            server_context(Tls(certificate=certificate, key=key), client_ca)
        assert why in str(refused.value)
        with pytest.raises(CertificateError):
            OwnCertificate(Tls(certificate=certificate, key=key), [listener(tls="implicit", client_ca=client_ca)])


def test_without_a_certificate_there_is_nothing_to_read():
    OwnCertificate(Tls(), [listener()]).look()


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """Let the two agree; return the cipher. ssl.SSLError if they cannot."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    ends = [server.wrap_bio(to_server, to_client, server_side=True), client.wrap_bio(to_client, to_server)]
    done = set()
    while len(done) < len(ends):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            done.add(end)
    cipher = ends[1].cipher()
    assert cipher is not None
    return cipher[0]


def client(ciphers: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    return context


def test_only_aead_with_forward_secrecy_by_our_preference_and_tls_1_2(files):
    server = server_context(files, None)
    assert server.minimum_version is ssl.TLSVersion.TLSv1_2
    for each in server.get_ciphers():
        assert each["aead"], each["name"]
        assert each["name"].startswith(("TLS_", "ECDHE-")), each["name"]
    strong, other = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"
    assert handshake(server, client(f"{strong}:{other}")) == handshake(server, client(f"{other}:{strong}")) == strong
    for refused in (
        "ECDHE-ECDSA-AES256-SHA384",
        "ECDHE-ECDSA-AES128-SHA",
        "AES256-GCM-SHA384",
        "DHE-RSA-AES256-GCM-SHA384",
    ):
        with pytest.raises(ssl.SSLError):
            handshake(server, client(refused))
    old = client("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        handshake(server, old)
