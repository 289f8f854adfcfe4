"""A page in a real browser on this machine, which tries what it can on the BigQuery emulator."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mozagg2bq_assets.local.stack import Stack

# Without CORS a page may send any POST of plain text or of a form anywhere, and only not read the answer.
PAGE = """
<!doctype html><title>page</title><pre id="found">unfinished</pre><script>
const answers = {}
async function ask(name, path, body, mode) {
    try {
        const answer = await fetch("URL" + path, {method: "POST", mode, body, headers: {"Content-Type": "text/plain"}})
        answers[name] = answer.type + " " + await answer.text()
    } catch (error) { answers[name] = "refused" }
}
(async () => {
    for (const mode of ["cors", "no-cors"]) {
        await ask("token " + mode, "/token", "", mode)
        await ask("query " + mode, "/bigquery/v2/projects/local/queries", BODY, mode)
    }
    document.getElementById("found").textContent = JSON.stringify(answers)
})()
</script>
"""


@contextmanager
def served(page: str) -> Iterator[str]:
    """A server with that page; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def test_a_page_gets_nothing_and_writes_nothing(stack: Stack, chromium: str, tmp_path: Path) -> None:
    """Neither a token nor an answer, and its statement is not run."""
    written = tmp_path / "written"
    body = json.dumps({"query": f"COPY (SELECT 1) TO '{written}'", "useLegacySql": False})
    page = PAGE.replace("URL", os.environ["BIGQUERY_EMULATOR_HOST"]).replace("BODY", json.dumps(body))
    options = ("--headless", "--no-sandbox", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000")
    with served(page) as url:
        dom = subprocess.run((chromium, *options, "--dump-dom", url), capture_output=True, text=True, timeout=60)
    found = json.loads(dom.stdout.split('<pre id="found">')[1].split("</pre>")[0])
    assert found == {
        "token cors": "refused",
        "query cors": "refused",
        "token no-cors": "opaque ",
        "query no-cors": "opaque ",
    }
    assert not written.exists()
