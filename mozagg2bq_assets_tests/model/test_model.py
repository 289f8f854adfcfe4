"""Table names, types and dates."""

from datetime import date

import pytest

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.partitions import parse_day
from mozagg2bq_assets.model.tables import AggregateType, SourceTable

SUBMISSION, BUILD = AggregateType.SUBMISSION_DATE, AggregateType.BUILD_ID


@pytest.mark.parametrize(
    ("name", "aggregate_type", "channel", "version"),
    [
        ("submission_date_nightly_73_20191201", SUBMISSION, "nightly", "73"),
        ("submission_date_nightly_cck_73_20191201", SUBMISSION, "nightly_cck", "73"),
        ("build_id_a_b_c_1_20191201", BUILD, "a_b_c", "1"),
        ("build_id_beta_72_20191201103045", BUILD, "beta", "72"),
    ],
)
def test_table_names(name: str, aggregate_type: AggregateType, channel: str, version: str) -> None:
    """Parsed from both ends."""
    assert SourceTable.parse(name) == SourceTable(name, aggregate_type, channel, version, date(2019, 12, 1))


@pytest.mark.parametrize(
    "name",
    [
        "submission_date_nightly_73_20191201_old", "staging_submission_date_nightly_73_20191201",
        "submission_date_nightly_73_20191301", "submission_date_nightly_73_20191201103045",
        "submission_date_73_20191201", "Submission_date_nightly_73_20191201",
        "submission_date_Nightly_73_20191201", "build_id_nightly_73", "",
    ],
)  # fmt: skip
def test_look_alikes(name: str) -> None:
    """Not an aggregate table's name."""
    assert SourceTable.parse(name) is None


def test_types_and_days() -> None:
    """As users write them."""
    assert AggregateType.parse("submission") is SUBMISSION
    assert parse_day("2019-12-01") == parse_day("20191201") == date(2019, 12, 1)
    for text in ("", "2019-12-32", "201912", "2019-1-1", "١٢٣٤٥٦٧٨"):
        with pytest.raises(UserError, match="not a date"):
            parse_day(text)
