"""TLS to the source: psycopg, pg_dump and psql alike, against a server with a certificate of a CA made here.

The embedded PostgreSQL is built without TLS, so Debian's package `postgresql` has to be there.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.postgres.dump import Dumper, PartitionDump
from mozagg2bq_assets.settings import read_postgres
from mozagg2bq_assets_tests.helpers.debian_postgres import OWNER, PASSWORD, debian_server, debian_tools

TABLE = "build_id_nightly_73_20191201"
Key = ec.EllipticCurvePrivateKey


def certificate(name: str, key: Key, issuer: str, issuer_key: Key) -> bytes:
    """A certificate of that name, as PEM; a CA's, if it is its own issuer."""
    now = datetime.now(UTC)
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in (name, issuer)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def tools() -> Path:
    """Debian's PostgreSQL."""
    return debian_tools()


@pytest.fixture(scope="module")
def server(tools: Path) -> Iterator[tuple[Path, int]]:
    """A server that takes connections by TLS alone, for `localhost`; gives the CA's certificate and the port."""
    with TemporaryDirectory(prefix="tls-") as made:
        folder = Path(made)
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        (folder / "ca.pem").write_bytes(certificate("our CA", ca_key, "our CA", ca_key))
        (folder / "server.pem").write_bytes(certificate("localhost", key, "our CA", ca_key))
        (folder / "server.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (folder / "server.key").chmod(0o600)
        options = f"-c ssl=on -c ssl_cert_file={folder / 'server.pem'} -c ssl_key_file={folder / 'server.key'}"
        with debian_server(tools, folder, "hostssl all all 127.0.0.1/32 scram-sha-256\n", options) as port:
            yield folder / "ca.pem", port


@pytest.fixture
def secured(server: tuple[Path, int], tools: Path, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """The source as variables name it, which asks for the server's certificate and its name."""
    ca, port = server
    variables = {
        "HOST": "localhost", "PORT": str(port), "DB": "postgres", "USER": OWNER, "PASS": PASSWORD,
        "SSLMODE": "verify-full", "SSLROOTCERT": str(ca),
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"POSTGRES_{name}", value)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return open_source(read_postgres())


def test_verify_full(secured: Postgres, tmp_path: Path) -> None:
    """A session, a dump and psql."""
    with secured.connect() as connection:
        found = connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
    assert found == (True,)
    administrator = psycopg.connect(
        host="localhost", port=secured.port, dbname="postgres", user=OWNER, password=PASSWORD, autocommit=True
    )
    with administrator:
        sample.create_table(administrator, TABLE)
        sample.insert(administrator, TABLE, sample.EDGE_ROWS)
    ((_, dump),) = Dumper(secured, tmp_path).dump([Partition(AggregateType.BUILD_ID, date(2019, 12, 1))])
    assert isinstance(dump, PartitionDump), dump
    assert dict(dump.rows) == {TABLE: len(sample.EDGE_ROWS)}
    assert dump.archive.partition.aggregate_type is AggregateType.BUILD_ID
    command = (shutil.which("psql") or "", "-Atc", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    result = subprocess.run(command, env=dict(secured.environment()), capture_output=True, text=True, check=True)
    assert result.stdout == "t\n"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"host": "127.0.0.1"}, 'does not match host name "127.0.0.1"'),
        ({"sslrootcert": "stranger"}, "certificate verify failed"),
        ({"sslmode": "disable", "sslrootcert": ""}, "no pg_hba.conf entry"),
    ],
)
def test_refused(secured: Postgres, tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    """Another name, another CA, no TLS: an error that says so, in a line, and no password sent."""
    if "stranger" in changes.values():
        key = ec.generate_private_key(ec.SECP256R1())
        (tmp_path / "ca.pem").write_bytes(certificate("a stranger", key, "a stranger", key))
        changes = {"sslrootcert": str(tmp_path / "ca.pem")}
    with pytest.raises(UserError, match=reason) as raised, replace(secured, **changes).connect():
        pass
    assert "_SSLMODE" in str(raised.value)
    assert "\n" not in str(raised.value)
