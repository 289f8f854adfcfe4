"""How PostgreSQL's own tools are run, on archives or on a server. Conversions import this, and not psycopg."""

# pg_dump writes the archive's date in local time, without a zone, and its errors in the shell's language.
TOOLS_ENVIRONMENT = {"TZ": "UTC", "LC_ALL": "C"}
