"""Read records from spreadsheets: .xlsx, .xls, .xlsb and .ods. Needs the extra ``excel``. Memory: one sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...onnx_export.counts import counted
from ...onnx_export.errors import MissingExtraError
from ..errors import SourceError
from .cells import MAX_EXACT
from .line_formats import Header, Record


def sheet_names(path: Path) -> list[str]:
    """The names of the sheets of a file, in order.

    Raises:
        SourceError: the file cannot be read.
        MissingExtraError: the extra ``excel`` is not installed.
    """
    return _workbook(path).sheet_names


def read_sheet(
    path: Path, sheet: str, say: Callable[[str], None] = lambda text: None, *, header_row: int | None = None
) -> Iterator[Record]:
    """Read one sheet: a header row, then one record for each row with a value.

    Of cells that are merged over several rows, each row has the value. Formats without merged cells (.xlsb, .ods) have
    it in the first row.

    Args:
        path: the file.
        sheet: name of the sheet.
        say: called with a sentence if rows or a column are left out, or merged cells are filled.
        header_row: number of the header row, from 1; None: the first row with a value.

    Yields:
        Pairs of place ("data.xlsx [Sheet1] row 5", as the program shows it) and record, a `CellRecord`. Cells are
        strings, numbers, booleans, dates and times; an empty cell is None.

    Raises:
        SourceError: the file cannot be read, or the header is missing or has a field twice.
        MissingExtraError: the extra ``excel`` is not installed.
    """
    name = f"{path} [{sheet}]"
    found = _workbook(path).get_sheet_by_name(sheet)
    merged = _MergedCells(found)
    first = (found.start or (0, 0))[0] + 1
    header: Header | None = None
    for number, cells in enumerate(found.to_python(skip_empty_area=True), start=first):
        row, place = [_value(cell) for cell in cells], f"{name} row {number}"
        if header is not None:
            if not header.skips(row, place):
                yield place, header.record(merged.fill(row, number), "", typed=True)
            merged.begin(row, number)
        elif header_row is None or number == header_row:
            names = merged.fill(row, number)
            header = Header(["" if value is None else str(value) for value in names], place, say)
            merged = _MergedCells(found)  # those of the header end in it
        else:
            merged.begin(row, number)
    if header is None:
        at = "" if header_row is None else f" in row {header_row}"
        raise SourceError(f"{name}: expected a header row with the field names{at}, but it is empty")
    header.end()
    if merged.filled:
        say(f"{name}: {counted(merged.filled, 'cell')} filled, from cells that are merged over several rows")


class _MergedCells:
    """Cells merged over several rows, of which a file has the value in the first row only.

    Cells merged over several columns are not filled: a note or a heading often lies across a sheet, and is no value of
    the columns under it.
    """

    def __init__(self, sheet: Any) -> None:
        self.filled = 0
        self._left = (sheet.start or (0, 0))[1]
        self._from: dict[int, list[tuple[int, int]]] = {}  # row where they begin: columns and last rows
        for (top, column), (bottom, _) in sheet.merged_cell_ranges or ():
            if bottom > top and column >= self._left:
                self._from.setdefault(top + 1, []).append((column - self._left, bottom + 1))
        self._open: dict[int, tuple[Any, int]] = {}  # column: value and last row

    def begin(self, row: list[Any], number: int) -> None:
        """Note the values of the cells that begin in a row."""
        for column, last in self._from.get(number, ()):
            if column < len(row):
                self._open[column] = row[column], last

    def fill(self, row: list[Any], number: int) -> list[Any]:
        """A row with the values of the cells that began above it."""
        row = list(row)
        for column, (value, last) in self._open.items():
            if number <= last and row[column] is None and value is not None:
                row[column] = value
                self.filled += 1
        return row


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
    return int(cell) if isinstance(cell, float) and cell.is_integer() and abs(cell) <= MAX_EXACT else cell
