"""The source as a run reaches it, with credentials from the settings or from an object in S3."""

import json

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.settings import CREDENTIALS_URI, PostgresByObject, PostgresByVariables

CREDENTIALS = ("POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASS")


def open_source(settings: PostgresByVariables | PostgresByObject) -> Postgres:
    """The source, which is not connected to yet. Raises UserError for an object that does not hold the credentials."""
    if isinstance(settings, PostgresByObject):
        dbname, user, password = _credentials(settings.credentials_uri)
    else:
        dbname, user, password = settings.dbname, settings.user, settings.password.get_secret_value()
    return Postgres(
        settings.host, str(settings.port), dbname, user, password, settings.sslmode, str(settings.sslrootcert or "")
    )


def _credentials(uri: str) -> tuple[str, str, str]:
    """Database, user and password."""
    # Only who keeps them in S3 pays for the client's import.
    from mozagg2bq_assets.lake.objects import read_object, s3_client

    try:
        found = json.loads(read_object(s3_client(), uri))
        dbname, user, password = (str(found[name]) for name in CREDENTIALS)
    except (ValueError, KeyError, TypeError) as error:
        names = ", ".join(CREDENTIALS)
        raise UserError(f"{CREDENTIALS_URI}: {uri} is not a JSON object with {names}") from error
    return dbname, user, password
