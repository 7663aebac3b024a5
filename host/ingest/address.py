"""How a broker is named by URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from device.delivery.link import Broker
from device.errors import BadInput

__all__ = ["broker_at"]


def broker_at(text: str, password_file: Path | None = None) -> Broker:
    """The broker at mqtt://[user@]HOST[:PORT], or mqtts:// for TLS with the system's certificates.

    BadInput for anything that is not such an address. A password comes from a file, never from the command
    line, where every user of the machine could read it.
    """
    example = "write mqtt://HOST:PORT, for example mqtt://127.0.0.1:1883"
    if "://" not in text:
        text = f"mqtt://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise BadInput(f"broker {text}: {error}; {example}") from None
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path not in ("", "/"):
        raise BadInput(f"broker {text}: not an address of a broker; {example}")
    if parts.password is not None:
        raise BadInput("broker: a password does not belong in the address; give --password-file FILE")
    user = unquote(parts.username) if parts.username else None
    password = None
    if password_file is not None:
        if user is None:
            raise BadInput("--password-file needs a user: --broker mqtt://USER@HOST:PORT")
        try:
            password = password_file.read_text("utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{password_file}: cannot read the password ({error})") from None
    tls = parts.scheme == "mqtts"
    return Broker(parts.hostname, port or (8883 if tls else 1883), user, password, tls)
