"""TLS to the source: psycopg, pg_dump and psql alike, against a server with a certificate of a CA made here.

The embedded PostgreSQL is built without TLS, so Debian's package `postgresql` has to be there.
"""

import os
import pwd
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
from mozagg2bq_assets.local.services import free_port
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.postgres.dump import Dumper, PartitionDump
from mozagg2bq_assets.settings import read_postgres

TABLE = "build_id_nightly_73_20191201"
PASSWORD = "made-up-for-this-test"
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
    """Debian's PostgreSQL. Skips without it, which CI does not let pass."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        if os.environ.get("REQUIRE_POSTGRESQL"):
            raise UserError("install Debian's package postgresql")
        pytest.skip("TLS needs Debian's package postgresql")
    return folders[-1]


@pytest.fixture(scope="module")
def server(tools: Path) -> Iterator[tuple[Path, int]]:
    """A server that takes connections by TLS alone, for `localhost`; gives the CA's certificate and the port."""
    with TemporaryDirectory(prefix="tls-") as made:
        folder, port = Path(made), free_port()
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        (folder / "ca.pem").write_bytes(certificate("our CA", ca_key, "our CA", ca_key))
        (folder / "server.pem").write_bytes(certificate("localhost", key, "our CA", ca_key))
        (folder / "server.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (folder / "server.key").chmod(0o600)
        (folder / "password").write_text(PASSWORD)
        # PostgreSQL does not run as root.
        owner = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        if owner:
            folder.chmod(0o755)
            for path in (folder, *folder.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        user, data = owner.pw_uid if owner else None, folder / "data"
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}

        def run(*command: str) -> None:
            subprocess.run(command, check=True, user=user, env=environment, stdout=subprocess.DEVNULL, cwd=folder)

        run(
            str(tools / "initdb"), f"--pgdata={data}", "--username=owner", "--auth=scram-sha-256",
            f"--pwfile={folder / 'password'}", "--no-sync",
        )  # fmt: skip
        (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        options = (
            f"-p {port} -c listen_addresses=localhost -c unix_socket_directories={folder} -c ssl=on -c fsync=off"
            f" -c ssl_cert_file={folder / 'server.pem'} -c ssl_key_file={folder / 'server.key'}"
        )
        run(str(tools / "pg_ctl"), "-w", "-D", str(data), "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield folder / "ca.pem", port
        finally:
            run(str(tools / "pg_ctl"), "-w", "-m", "immediate", "-D", str(data), "stop")


@pytest.fixture
def secured(server: tuple[Path, int], tools: Path, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """The source as variables name it, which asks for the server's certificate and its name."""
    ca, port = server
    variables = {
        "HOST": "localhost", "PORT": str(port), "DB": "postgres", "USER": "owner", "PASS": PASSWORD,
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
        host="localhost", port=secured.port, dbname="postgres", user="owner", password=PASSWORD, autocommit=True
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
