"""Parquet files as one, without a look at their rows: row groups are copied as they are, and the footers are joined.

A footer is a Thrift struct in the compact protocol, in which every field comes with its type: those that we do not know
are kept as they were. Fields' numbers are those of parquet-format's `parquet.thrift`.
"""

import os
import shutil
from collections.abc import Iterable
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

# FileMetaData
_SCHEMA, _NUM_ROWS, _ROW_GROUPS = 2, 3, 4
# RowGroup
_COLUMNS, _GROUP_OFFSETS = 1, {5}
# ColumnChunk
_META_DATA, _PAGE_INDEX = 3, (4, 5, 6, 7)
# ColumnMetaData: its pages, its dictionary, its Bloom filter
_COLUMN_OFFSETS = {9, 10, 11, 14}

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
    """Write the rows of one Parquet file or more, all by one writer, into one. Raises DataError if columns differ."""
    joined: Struct = {}
    with output.open("wb") as target:
        target.write(MAGIC)
        for path in paths:
            start = target.tell()
            footer = _copy(path, target)
            for group in _elements(footer, _ROW_GROUPS):
                _move(group, start - len(MAGIC))
            if not joined:
                joined = footer
            elif footer[_SCHEMA] == joined[_SCHEMA]:
                _append(joined, footer)
            else:
                raise DataError(f"{path}: its columns are not those of the files before it")
        footer_bytes = _encoded(joined)
        target.write(footer_bytes + len(footer_bytes).to_bytes(LENGTH_BYTES, "little") + MAGIC)


def _copy(path: Path, target: BinaryIO) -> Struct:
    """Append what is between a file's magic number and its footer, and give the footer."""
    with path.open("rb") as source:
        source.seek(-LENGTH_BYTES - len(MAGIC), os.SEEK_END)
        end = source.tell() - int.from_bytes(source.read(LENGTH_BYTES), "little")
        source.seek(end)
        footer = _read_struct(TCompactProtocol(TMemoryBuffer(source.read())))
        source.seek(len(MAGIC))
        start = target.tell()
        shutil.copyfileobj(source, target)
    target.seek(start + end - len(MAGIC))
    target.truncate()
    return footer


def _move(group: Struct, by: int) -> None:
    """Add to all offsets of a row group. A page index would not be true any more: it has offsets of its own."""
    _add(group, _GROUP_OFFSETS, by)
    for column in _elements(group, _COLUMNS):
        for field in _PAGE_INDEX:
            column.pop(field, None)
        _add(column[_META_DATA][1], _COLUMN_OFFSETS, by)


def _add(struct: Struct, offsets: set[int], by: int) -> None:
    for field in offsets & struct.keys():
        kind, offset = struct[field]
        if offset:  # 0 leads nowhere
            struct[field] = (kind, offset + by)


def _append(joined: Struct, footer: Struct) -> None:
    _elements(joined, _ROW_GROUPS).extend(_elements(footer, _ROW_GROUPS))
    kind, rows = joined[_NUM_ROWS]
    joined[_NUM_ROWS] = (kind, rows + footer[_NUM_ROWS][1])


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
