"""Rows as CSV text and back. What the writer accepts, a reader gets back as it was."""

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cl_repro.common.errors import UserError
from cl_repro.records.columns import BOOL, FLOAT, INT, TEXT, Table

Row = dict[str, Any]
# Control characters and halves of surrogate pairs: no CSV holds them, so that a row is a line, in every program.
CONTROL = "\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff"
UNWRITABLE = re.compile(f"[{CONTROL}]")
LOOKS = {  # of a value in a CSV, by its type
    TEXT: re.compile(f"[^{CONTROL}]*"),
    FLOAT: re.compile(r"(nan|[-+]?(inf|(\d+\.?\d*|\.\d+)(e[-+]?\d+)?))?", re.ASCII),
    INT: re.compile(r"-?\d+", re.ASCII),
    BOOL: re.compile("True|False"),
}


def to_csv(columns: Collection[str], rows: Iterable[Row], header: bool = True) -> bytes:
    """Rows as CSV text; None is empty.

    Args:
        columns: of the file; a row may lack some, which are then empty.
        rows: their values.
        header: whether the names of the columns come first.

    Returns:
        A line for each row, in UTF-8.

    Raises:
        UserError: a value holds a control character.
    """
    text, rows = io.StringIO(), list(rows)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    found = text.getvalue()
    if found.count("\n") != header + len(rows) or UNWRITABLE.search(found.replace("\n", "")):
        name, value = next((k, v) for row in rows for k, v in row.items() if UNWRITABLE.search(str(v)))
        raise UserError(f"{name}={value!r}: must have no control characters")
    return found.encode()


def from_csv(path: Path, columns: Collection[str], data: bytes, header: bool = True) -> Iterator[Row]:
    """The rows of a CSV that has exactly these columns, as text.

    Args:
        path: of the file, for messages.
        columns: of the file.
        data: its content, or the lines that follow its header.
        header: whether it begins with the header.

    Yields:
        A row of every line.

    Raises:
        UserError: another header, or a line with another number of fields.
    """
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace", newline=""))
    if header and next(reader, None) != list(columns):
        raise UserError(
            f"{path}: its header is not the one this version writes; move the folder away or restore the file"
        )
    for values in reader:
        if len(values) != len(columns):
            raise UserError(
                f"{path}: line {reader.line_num} has {len(values)} fields instead of {len(columns)}: truncated?"
            )
        yield dict(zip(columns, values, strict=True))


def as_text(columns: Table, row: Mapping[str, Any]) -> Row:
    """A row as the CSV will have it, in the order of its columns.

    Raises:
        ValueError: it has not exactly these columns, or a value is not of its column's type.
    """
    if row.keys() != columns.keys():
        name = min(row.keys() ^ columns.keys(), key=str)
        raise ValueError(f"column {name!r} is {'missing' if name in columns else 'unknown'}")
    found = {name: "" if row[name] is None else str(row[name]) for name in columns}
    for name, column in columns.items():
        if not LOOKS[column.type].fullmatch(found[name]):
            raise ValueError(f"{name}={found[name]!r} is not a {column.type}, or has control characters")
    return found


def cell_of(key: Sequence[str], row: Row) -> str:
    """Names the cell of a row that is text, by the columns of a key; of a row that lacks the last ones, its cells."""
    return "_".join(row[column] for column in key if column in row)


def names_of(cells: Iterable[str]) -> set[str]:
    """What `cell_of` says of the rows of these cells, whichever table they are in."""
    ends = {cell: [i for i, one in enumerate(cell) if one == "_"] for cell in cells}
    return {cell[:end] for cell, places in ends.items() for end in (*places, len(cell))}


def chunk_as_text(
    tables: Mapping[str, Table], key: Sequence[str], rows: Mapping[str, list[Row]]
) -> dict[str, list[Row]]:
    """The rows of a chunk as text, by file.

    Args:
        tables: of the store; a row of the last one is a finished cell.
        key: columns that name a row's cell.
        rows: by file.

    Raises:
        ValueError: a file too many or too few, a row that is not as its table says, or of no cell of the chunk.
    """
    if rows.keys() != tables.keys():
        raise ValueError(f"must have the rows of {', '.join(tables)}")
    result: dict[str, list[Row]] = {name: [] for name in tables}
    for name, columns in tables.items():
        for i, row in enumerate(rows[name]):
            try:
                result[name].append(as_text(columns, row))
            except (ValueError, AttributeError) as error:  # AttributeError: no row at all
                raise ValueError(f"row {i} of {name}: {error}") from None
    last = [*tables][-1]
    if len({tuple(row.values()) for row in result[last]}) != len(result[last]):
        raise ValueError(f"a row occurs twice in {last}")
    cells = names_of(cell_of(key, row) for row in result[last])
    for name, of_file in result.items():
        for i, row in enumerate(of_file):
            own = {column: row[column] for column in key if column in row}
            if not all(own.values()) or cell_of(key, row) not in cells:
                of = ", ".join(f"{column}={value!r}" for column, value in own.items())
                raise ValueError(f"row {i} of {name}: {of} is of no run of the chunk")
    return result
