"""Read records from spreadsheets: .xlsx, .xls, .xlsb and .ods. Needs the extra ``excel``. Memory: one sheet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...onnx_export.errors import MissingExtraError
from ..errors import SourceError
from .line_formats import Header, Record

_MAX_EXACT = 2**53


def sheet_names(path: Path) -> list[str]:
    """The names of the sheets of a file, in order.

    Raises:
        SourceError: the file cannot be read.
        MissingExtraError: the extra ``excel`` is not installed.
    """
    return _workbook(path).sheet_names


def read_sheet(path: Path, sheet: str) -> Iterator[Record]:
    """Read one sheet: a header row, then one record for each row. Rows without any value are left out.

    Args:
        path: the file.
        sheet: name of the sheet.

    Yields:
        Pairs of place ("data.xlsx [Sheet1] row 5", as the program shows it) and record, a `CellRecord`. Cells are
        strings, numbers, booleans, dates and times; an empty cell is None.

    Raises:
        SourceError: the file cannot be read, or the header is missing or has a field twice.
        MissingExtraError: the extra ``excel`` is not installed.
    """
    name = f"{path} [{sheet}]"
    found = _workbook(path).get_sheet_by_name(sheet)
    first = (found.start or (0, 0))[0] + 1
    header: Header | None = None
    for number, cells in enumerate(found.to_python(skip_empty_area=True), start=first):
        row = [_value(cell) for cell in cells]
        if header is None:
            header = Header(["" if value is None else str(value) for value in row], f"{name} row {number}")
        elif any(value is not None for value in row):
            yield f"{name} row {number}", header.record(row, "", typed=True)
    if header is None:
        raise SourceError(f"{name}: an empty sheet; expected a header row with the field names")


def _workbook(path: Path) -> Any:
    try:
        import python_calamine
    except ModuleNotFoundError as error:
        raise MissingExtraError("python-calamine", "excel") from error
    try:
        return python_calamine.load_workbook(path)
    except (OSError, python_calamine.CalamineError) as error:
        raise SourceError(f"{path}: cannot be read ({error}); save the spreadsheet again, or as CSV") from error


def _value(cell: Any) -> Any:
    """The value of a cell. Spreadsheets have no integers: a whole number is one."""
    if cell == "":
        return None
    return int(cell) if isinstance(cell, float) and cell.is_integer() and abs(cell) <= _MAX_EXACT else cell
