"""Table names, types and dates."""

from datetime import date

import pytest

from mozagg2bq_assets.errors import CountMismatch, DataError, UserError
from mozagg2bq_assets.model.counts import ChannelCounts, TableCounts, UnmappedKey, UnmappedKeys, check_counts
from mozagg2bq_assets.model.partitions import DayRange, parse_day
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
        "submission_date_Nightly_73_20191201", "build_id_nightly_73", "", "build_id_night\nly_73_20191201",
        "build_id_night ly_73_20191201", "build_id_nightly_7\n3_20191201", "build_id_\x1b[31m_73_20191201",
        "build_id_\u202enightly_73_20191201",
    ],
)  # fmt: skip
def test_look_alikes(name: str) -> None:
    """Not an aggregate table's name."""
    assert SourceTable.parse(name) is None


def test_types_and_days() -> None:
    """As users write them."""
    assert AggregateType.parse("submission") is SUBMISSION
    assert parse_day("2019-12-01") == parse_day("20191201") == date(2019, 12, 1)


@pytest.mark.parametrize("text", ["", "2019-12-32", "201912", "2019-1-1", "١٢٣٤٥٦٧٨"])
def test_no_day(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(UserError, match="not a date"):
        parse_day(text)


def test_counts() -> None:
    """Tables of one channel and version share a count; a difference names the first and how many more there are."""
    tables = TableCounts(
        {"build_id_beta_72_20191201": 1, "build_id_beta_72_20191201103045": 2, "build_id_esr_68_20191201": 4}
    )
    channels = tables.by_channel()
    assert channels == {"beta 72": 3, "esr 68": 4}
    assert (tables.total, channels.total) == (7, 7)
    check_counts("here", channels, ChannelCounts({"beta 72": 3, "esr 68": 4, "nightly 1": 0}))
    with pytest.raises(CountMismatch, match="here: beta 72 should have 3 rows and has 0, and 1 more differ"):
        check_counts("here", channels, ChannelCounts())
    with pytest.raises(ValueError, match="not an aggregate table: other"):
        TableCounts({"other": 1}).by_channel()


def test_unmapped_keys() -> None:
    """Rows add up, and the first example stays, cut."""
    keys = UnmappedKeys()
    keys.add("process", '"gpu"')
    keys.merge({"process": UnmappedKey(2, '"tab"'), "n": UnmappedKey(1, "x" * 300)})
    assert keys == {"process": UnmappedKey(3, '"gpu"'), "n": UnmappedKey(1, "x" * 200)}
    assert (keys.warning() or "").startswith("keys of dimensions that have no column: 'n' in 1 rows, e.g. xxx")
    assert UnmappedKeys().warning() is None


def test_many_unmapped_keys() -> None:
    """A line names a few and says how many there are; a manifest names the most frequent."""
    keys = UnmappedKeys()
    for n in range(20_000):
        keys.add(f"key {n} " + "x" * 1000, '"y"', rows=1 + (n == 7))
    warning = keys.warning() or ""
    assert warning.endswith("; and 19995 more")
    assert len(warning) < 600
    named = keys.most_frequent()
    assert (len(named), next(iter(named))[:6]) == (100, "key 7 ")
    assert (named.warning(len(keys) - len(named)) or "").endswith("; and 19995 more")


def test_day_range() -> None:
    """The end is exclusive; a range that ends before it starts is empty."""
    days = DayRange(date(2019, 12, 30), date(2020, 1, 2))
    assert list(days) == [date(2019, 12, 30), date(2019, 12, 31), date(2020, 1, 1)]
    assert (len(days), days.start in days, days.end in days) == (3, True, False)
    assert list(DayRange(days.end, days.start)) == []
    assert [list(part) for part in days.parts(2)] == [list(days)[:2], list(days)[2:]]


def test_what_does_not_print() -> None:
    """Names and messages of servers make neither lines nor colours of their own in ours."""
    assert str(DataError("table a\nb\x1b[31m: \u202e ä 😀")) == r"table a\nb\x1b[31m: \u202e ä 😀"
    assert "\n" not in (UnmappedKeys({"a\nb": UnmappedKey(1, "x\ny")}).warning() or "\n")


@pytest.mark.parametrize("aggregate_type", AggregateType)
def test_every_type_has_tables(aggregate_type: AggregateType) -> None:
    """A type whose names were not parsed would have no rows, and no count would differ."""
    table = SourceTable.parse(f"{aggregate_type}_nightly_73_20191201")
    assert table is not None
    assert table.aggregate_type is aggregate_type
