"""Credentials of the local stack, made up here, in files that their owner alone can read."""

import json
import secrets
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

NAMES = ("POSTGRES_PASS", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def made_up_secrets(state_dir: Path) -> dict[str, str]:
    """The stack's passwords and keys, by variable; always the same for one folder."""
    path = state_dir / "secrets.json"
    if not path.exists():
        write_private(path, json.dumps({name: secrets.token_hex(20) for name in NAMES}))
    made_up: dict[str, str] = json.loads(path.read_text())
    return made_up


def write_service_account(state_dir: Path, bigquery_port: int) -> None:
    """A service account of the usual form, whose tokens come from the emulator."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "local",
        "client_email": "mozagg2bq@local.invalid",
        "private_key": key.decode(),
        "token_uri": f"http://127.0.0.1:{bigquery_port}/token",
    }
    write_private(state_dir / "service_account.json", json.dumps(account))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.replace(path)
