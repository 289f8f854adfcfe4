"""The notebook, run from its first cell to its last on the embedded stack."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

from mozagg2bq_assets.bigquery.views import replace_view
from mozagg2bq_assets.local.stack import ROOT
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline

NOTEBOOK = ROOT / "notebooks" / "explore.ipynb"


def test_explore(pipeline: Pipeline, tmp_path: Path) -> None:
    """It shows a day's rows, the same in BigQuery, and two plots; no cell fails."""
    pipeline.ingest(tmp_path)
    replace_view(pipeline.warehouse, TYPE)
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear its outputs before committing it"
    NotebookClient(notebook, timeout=120).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2
    texts = [output["data"]["text/plain"] for output in shown if "text/plain" in output.get("data", {})]
    (counts,) = [text for text in texts if "Parquet" in text and "BigQuery" in text]
    assert "True" in counts
    assert "False" not in counts
    assert any(str(DAYS.start) in text for text in texts)
