"""Parquet files as one, without a look at their rows: row groups are copied as they are, and the footers are joined.

A footer is a Thrift struct in the compact protocol, in which every field comes with its type: those that we do not know
are kept as they were. The enumerations give fields' numbers, under the names of parquet-format's `parquet.thrift`.
"""

import os
import shutil
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.Thrift import TType
from thrift.transport.TTransport import TMemoryBuffer

from mozagg2bq_assets.errors import DataError

# By field, its type and value; the value of a list is its elements' type and the elements.
Struct: TypeAlias = dict[int, tuple[int, Any]]

MAGIC = b"PAR1"
LENGTH_BYTES = 4


class FileMetaData(IntEnum):
    """Fields of a footer."""

    SCHEMA = 2
    NUM_ROWS = 3
    ROW_GROUPS = 4
    CREATED_BY = 6


class RowGroup(IntEnum):
    """Fields of a row group."""

    COLUMNS = 1
    FILE_OFFSET = 5
    ORDINAL = 7


class ColumnChunk(IntEnum):
    """Fields of a row group's column: its metadata, and where the page index lies."""

    META_DATA = 3
    OFFSET_INDEX_OFFSET = 4
    OFFSET_INDEX_LENGTH = 5
    COLUMN_INDEX_OFFSET = 6
    COLUMN_INDEX_LENGTH = 7


class ColumnMetaData(IntEnum):
    """Fields of a column's metadata that are offsets into the file."""

    DATA_PAGE_OFFSET = 9
    INDEX_PAGE_OFFSET = 10
    DICTIONARY_PAGE_OFFSET = 11
    BLOOM_FILTER_OFFSET = 14


# Optional, and its offsets into the file would be wrong: the index itself lies outside of the footer.
PAGE_INDEX = tuple(field for field in ColumnChunk if field is not ColumnChunk.META_DATA)

_PRIMITIVES = {
    TType.BOOL: "Bool",
    TType.BYTE: "Byte",
    TType.I16: "I16",
    TType.I32: "I32",
    TType.I64: "I64",
    TType.DOUBLE: "Double",
    TType.STRING: "Binary",
}


def concatenate(paths: Iterable[Path], output: Path) -> None:
    """Write the rows of one Parquet file or more into one.

    Raises DataError, and then the output is of no use, unless all are Parquet by one writer with the same columns.
    """
    joined: Struct = {}
    with output.open("wb") as target:
        target.write(MAGIC)
        for path in paths:
            shift = target.tell() - len(MAGIC)
            footer = _copy(path, target)
            for group in _elements(footer, FileMetaData.ROW_GROUPS):
                _shift_offsets(group, shift)
            if not joined:
                joined = footer
            elif all(footer[field] == joined[field] for field in (FileMetaData.SCHEMA, FileMetaData.CREATED_BY)):
                _append(joined, footer)
            else:
                raise DataError(f"{path}: its columns or its writer are not those of the files before it")
        footer_bytes = _encoded(joined)
        target.write(footer_bytes + len(footer_bytes).to_bytes(LENGTH_BYTES, "little") + MAGIC)


def _copy(path: Path, target: BinaryIO) -> Struct:
    """Append what is between a file's magic number and its footer, and give the footer."""
    with path.open("rb") as source:
        source.seek(-LENGTH_BYTES - len(MAGIC), os.SEEK_END)
        end = source.tell()
        length, magic = source.read(LENGTH_BYTES), source.read()
        if magic != MAGIC:
            raise DataError(f"{path}: not a Parquet file")
        footer_length = int.from_bytes(length, "little")
        source.seek(end - footer_length)
        footer = _read_struct(TCompactProtocol(TMemoryBuffer(source.read(footer_length))))
        source.seek(len(MAGIC))
        shutil.copyfileobj(source, target)
    # The footer was copied with the rest; the next file's data takes its place.
    target.seek(-footer_length - LENGTH_BYTES - len(MAGIC), os.SEEK_CUR)
    target.truncate()
    return footer


def _shift_offsets(group: Struct, by: int) -> None:
    """Add to all offsets of a row group."""
    _add(group, (RowGroup.FILE_OFFSET,), by)
    group.pop(RowGroup.ORDINAL, None)  # optional, and another one in the new file
    for column in _elements(group, RowGroup.COLUMNS):
        for field in PAGE_INDEX:
            column.pop(field, None)
        _add(column[ColumnChunk.META_DATA][1], ColumnMetaData, by)


def _add(struct: Struct, fields: Iterable[int], by: int) -> None:
    for field in fields:
        kind, offset = struct.get(field, (TType.I64, 0))
        if offset:  # 0 leads nowhere
            struct[field] = (kind, offset + by)


def _append(joined: Struct, footer: Struct) -> None:
    _elements(joined, FileMetaData.ROW_GROUPS).extend(_elements(footer, FileMetaData.ROW_GROUPS))
    kind, rows = joined[FileMetaData.NUM_ROWS]
    joined[FileMetaData.NUM_ROWS] = (kind, rows + footer[FileMetaData.NUM_ROWS][1])


def _elements(struct: Struct, field: int) -> list[Struct]:
    elements: list[Struct]
    _, (_, elements) = struct[field]
    return elements


def _read(protocol: TCompactProtocol, kind: int) -> Any:
    """Whatever comes next, which is of that type."""
    if kind == TType.STRUCT:
        return _read_struct(protocol)
    if kind == TType.LIST:
        element, length = protocol.readListBegin()
        elements = [_read(protocol, element) for _ in range(length)]
        protocol.readListEnd()
        return element, elements
    return getattr(protocol, f"read{_PRIMITIVES[kind]}")()


def _read_struct(protocol: TCompactProtocol) -> Struct:
    fields: Struct = {}
    protocol.readStructBegin()
    while True:
        _, kind, field = protocol.readFieldBegin()
        if kind == TType.STOP:
            break
        fields[field] = (kind, _read(protocol, kind))
        protocol.readFieldEnd()
    protocol.readStructEnd()
    return fields


def _write(protocol: TCompactProtocol, kind: int, value: Any) -> None:
    if kind == TType.STRUCT:
        _write_struct(protocol, value)
    elif kind == TType.LIST:
        element, elements = value
        protocol.writeListBegin(element, len(elements))
        for each in elements:
            _write(protocol, element, each)
        protocol.writeListEnd()
    else:
        getattr(protocol, f"write{_PRIMITIVES[kind]}")(value)


def _write_struct(protocol: TCompactProtocol, fields: Struct) -> None:
    protocol.writeStructBegin("")
    for field, (kind, value) in fields.items():
        protocol.writeFieldBegin("", kind, field)
        _write(protocol, kind, value)
        protocol.writeFieldEnd()
    protocol.writeFieldStop()
    protocol.writeStructEnd()


def _encoded(footer: Struct) -> bytes:
    buffer = TMemoryBuffer()
    _write_struct(TCompactProtocol(buffer), footer)
    return bytes(buffer.getvalue())
