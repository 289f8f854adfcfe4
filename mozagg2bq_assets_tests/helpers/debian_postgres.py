"""A server of Debian's package `postgresql`, for what the embedded one cannot do: TLS, and older versions."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.local.services import free_port

OWNER = "owner"
PASSWORD = "made-up-for-this-test"


def debian_tools() -> Path:
    """The folder of the newest version's programs. Skips where there is none, which CI does not let pass."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        if os.environ.get("REQUIRE_POSTGRESQL"):
            raise UserError("install Debian's package postgresql")
        pytest.skip("this needs Debian's package postgresql")
    return folders[-1]


@contextmanager
def debian_server(tools: Path, folder: Path, access: str, options: str = "") -> Iterator[int]:
    """A server on a port of 127.0.0.1, which is given; its superuser is OWNER, with PASSWORD.

    All that the folder holds becomes readable for it. `access` is its pg_hba.conf.
    """
    port, data = free_port(), folder / "data"
    (folder / "password").write_text(PASSWORD)
    # PostgreSQL does not run as root.
    owner = pwd.getpwnam("postgres") if os.getuid() == 0 else None
    if owner:
        folder.chmod(0o755)
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    user, environment = owner.pw_uid if owner else None, {**os.environ, "LC_ALL": "C.UTF-8"}

    def run(*command: str) -> None:
        subprocess.run(command, check=True, user=user, env=environment, stdout=subprocess.DEVNULL, cwd=folder)

    run(
        str(tools / "initdb"), f"--pgdata={data}", f"--username={OWNER}", "--auth=scram-sha-256",
        f"--pwfile={folder / 'password'}", "--no-sync",
    )  # fmt: skip
    (data / "pg_hba.conf").write_text(access)
    options = f"-p {port} -c listen_addresses=localhost -c unix_socket_directories={folder} -c fsync=off {options}"
    run(str(tools / "pg_ctl"), "-w", "-D", str(data), "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield port
    finally:
        run(str(tools / "pg_ctl"), "-w", "-m", "immediate", "-D", str(data), "stop")
