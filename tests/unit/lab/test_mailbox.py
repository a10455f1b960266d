"""The captured mail on disk."""

from pathlib import Path

import msgspec
import pytest

from mta.lab.mailbox import Captured, Mailbox
from mta.mail.envelope import Envelope, Recipient

MAIL = Captured(
    envelope=Envelope(
        sender="ü@a.test",
        recipients=(Recipient("b@c.test", 2, "rfc822;b@c.test"), Recipient("d@c.test")),
        smtputf8=True,
        ret="HDRS",
    ),
    content=b"Subject: \xfc\r\n\r\n.lone\nbare\r\n\x00end without a line end",
    tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
    peer="127.0.0.1:1234",
    at=1_800_000_000.25,
)


def with_content(content: bytes) -> Captured:
    return msgspec.structs.replace(MAIL, content=content)


def test_what_is_kept_is_read_back_whole(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path / "mail")
    name = mailbox.add(MAIL)
    assert name == "00000001.eml"
    assert mailbox.read(name) == MAIL
    text = (tmp_path / "mail" / name).read_bytes()
    assert text.startswith(b"X-Lab-Envelope: {")
    assert text.endswith(b"}\r\n" + MAIL.content)


def test_another_process_reads_and_a_restart_goes_on_with_the_numbers(tmp_path: Path) -> None:
    first = Mailbox(tmp_path)
    reader = Mailbox(tmp_path)
    first.add(with_content(b"one"))
    assert reader.names() == ["00000001.eml"]
    second = Mailbox(tmp_path)
    assert second.add(with_content(b"two")) == "00000002.eml"
    assert [reader.read(name).content for name in reader.names()] == [b"one", b"two"]


def test_the_oldest_go_beyond_the_bound(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path, limit=3)
    for number in range(1, 6):
        mailbox.add(with_content(b"%d" % number))
    assert mailbox.names() == ["00000003.eml", "00000004.eml", "00000005.eml"]
    smaller = Mailbox(tmp_path, limit=1)
    smaller.add(with_content(b"6"))
    assert smaller.names() == ["00000006.eml"]
    assert [path.name for path in tmp_path.iterdir()] == ["00000006.eml"]


def test_names_keep_their_order_beyond_eight_digits(tmp_path: Path) -> None:
    (tmp_path / "99999999.eml").write_bytes(b"")
    mailbox = Mailbox(tmp_path)
    mailbox.add(MAIL)
    assert mailbox.names() == ["99999999.eml", "100000000.eml"]


@pytest.mark.parametrize("name", ["00000009.eml", "../secret.eml", "unfinished", "", "00000001.eml\n"])
def test_a_message_that_is_not_there_is_a_key_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.eml").write_bytes(b"")
    mailbox = Mailbox(tmp_path / "mail")
    mailbox.add(MAIL)
    (tmp_path / "mail" / "unfinished").write_bytes(b"half a messa")
    assert mailbox.names() == ["00000001.eml"]
    with pytest.raises(KeyError):
        mailbox.read(name)
