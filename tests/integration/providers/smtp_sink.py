"""An SMTP server for one test: prints what it took as lines of JSON.

The local part of a recipient says how it is answered; "late" is answered once there is
a line on the standard input. Of "silent" and "lost" the whole mail is read, and nothing is
answered.
"""

import asyncio
import json
import ssl
import sys
from email import errors, message_from_bytes, policy

from aiosmtpd.smtp import SMTP, AuthResult

AT_RCPT = {
    "unknown": "550 5.1.1 <{}>: no such user",
    "moved": "551 5.1.6 {} has moved",
    "odd": "553 5.1.3 {} is odd",
    "stranger": "550 5.7.1 relaying to {} denied",
    "plain": "550 no, not {}",
    "sender": "550 5.1.8 your domain is unknown to {}",
    "later": "451 4.3.0 {}: try again later",
    "bye": "421 4.3.2 shutting down",
}
AT_DATA = {
    "spam": "554 5.7.1 {} wants no spam",
    "full": "452 4.2.2 mailbox of {} is full",
}


# Headers that a mail must have exactly once (RFC 5322, section 3.6; RFC 2045, section 3).
REQUIRED = ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"]


def faults(content):
    """Everything that a strict reader would hold against a mail."""
    found = []
    if b"\r" in content.replace(b"\r\n", b"") or b"\n" in content.replace(b"\r\n", b""):
        found.append("a line ends without CRLF")
    if any(len(line) > 998 for line in content.split(b"\r\n")):
        found.append("a line is over 998 bytes")
    try:
        mail = message_from_bytes(content, policy=policy.strict)
        for part in mail.walk():
            for name in part.keys():
                found += [f"{name}: {defect}" for defect in part[name].defects]
            found += [str(defect) for defect in part.defects]
            if part.is_multipart():
                continue
            encoding = str(part["Content-Transfer-Encoding"])
            if encoding not in ("7bit", "quoted-printable", "base64"):
                found.append(f"Content-Transfer-Encoding: {encoding}")
            part.get_content().encode()
            part.get_payload(decode=True).decode(part.get_content_charset(), "strict")
    except (errors.MessageError, errors.MessageDefect, LookupError, UnicodeError) as error:
        return [*found, f"{type(error).__name__}: {error}"]
    for name in REQUIRED:
        if len(mail.get_all(name, [])) != 1:
            found.append(f"{name} is there {len(mail.get_all(name, []))} times")
    if str(mail["MIME-Version"]) != "1.0":
        found.append(f"MIME-Version: {mail['MIME-Version']}")
    return found


def tell(**what):
    print(json.dumps(what), flush=True)


class Sink:
    def __init__(self, go_on):
        self.go_on = go_on

    async def handle_RCPT(self, server, session, envelope, address, options):
        local_part = address.partition("@")[0]
        if local_part == "late":
            tell(event="late")
            await self.go_on.wait()
        if local_part in AT_RCPT:
            return AT_RCPT[local_part].format(address)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 fine"

    async def handle_DATA(self, server, session, envelope):
        to = envelope.rcpt_tos[0]
        local_part = to.partition("@")[0]
        if local_part in AT_DATA:
            return AT_DATA[local_part].format(to)
        if local_part == "silent":
            await asyncio.Event().wait()
        if local_part == "lost":
            server.transport.abort()
            return "250 2.0.0 taken"
        mail = message_from_bytes(envelope.content, policy=policy.default)
        text = mail.get_body(("plain",))
        html = mail.get_body(("html",))
        tell(
            event="mail",
            peer=session.peer[1],
            hello=session.host_name,
            tls=session.ssl is not None,
            mail_from=envelope.mail_from,
            rcpt_to=envelope.rcpt_tos,
            ascii=envelope.content.isascii(),
            type=mail.get_content_type(),
            headers={name.lower(): str(value) for name, value in mail.items()},
            text=text and text.get_content(),
            html=html and html.get_content(),
            faults=faults(envelope.content),
        )
        return "250 2.0.0 taken"


def authenticate(server, session, envelope, mechanism, data):
    known = data.login == b"otpd" and data.password == "pässword".encode()
    return AuthResult(success=known, handled=False)


async def main():
    certificate, key, mode = sys.argv[1:]
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    options = {"auth_require_tls": False}
    if mode == "starttls":
        options = {"tls_context": tls, "require_starttls": True}
    loop = asyncio.get_running_loop()
    go_on = asyncio.Event()
    server = await loop.create_server(
        lambda: SMTP(Sink(go_on), authenticator=authenticate, auth_required=True, **options),
        host="127.0.0.1",
        port=0,
        ssl=tls if mode == "implicit" else None,
    )
    tell(event="listening", port=server.sockets[0].getsockname()[1])
    # The test holds the other end; it is closed when the test ends, however it ends.
    while await loop.run_in_executor(None, sys.stdin.readline):
        go_on.set()


asyncio.run(main())
