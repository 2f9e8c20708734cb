"""Delimited text as it is found: encodings, separators, decimal commas, and rows that do not fit their header."""

import csv
import io
import re
from collections import Counter
from pathlib import Path

_SEPARATORS = (",", ";", "\t")
_COMMA_NUMBER = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?")
_PLAIN_NUMBER = re.compile(r"[-+]?\d+(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf|infinity)|", re.IGNORECASE)
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
_POINT_NUMBER = re.compile(r"[-+]?\d*\.\d+(?:[eE][-+]?\d+)?")

Rows = list[list[str]]


def text(file: Path) -> str:
    """Returns the text of a file: UTF-8, or UTF-16 that says so, without the mark that says it; raises ValueError."""
    content = file.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding.removesuffix('-sig').upper()} at byte {error.start}") from None


def read(file: Path) -> tuple[list[str], Rows, list[str]]:
    """Returns (names of columns, cells of each row as text, notes); raises ValueError for what is no table.

    Commas separate the cells of .csv, tabs those of .tsv, unless the header holds more of another separator.
    """
    content = text(file)
    usual = "\t" if file.suffix.lower() == ".tsv" else ","
    header = next((line for line in content.splitlines() if line.strip()), "")
    separator = max(_SEPARATORS, key=lambda each: (header.count(each), each == usual))
    try:
        rows = [row for row in csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True) if row]
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if not rows:
        raise ValueError("it is empty")
    names, cells = [name.strip() for name in rows[0]], [row for row in rows[1:] if any(row)]
    for number, row in enumerate(cells, 2):
        if len(row) != len(names):
            raise ValueError(f"row {number} has {len(row)} cells, the header {len(names)}")
    said = {";": "semicolons", "\t": "tabs", ",": "commas"}[separator]
    notes = [] if separator == usual else [f"cells are separated by {said}"]
    if separator != ",":
        notes += _read_decimal_commas(names, cells)
    return names, cells, notes


def once(names: list[str]) -> list[str]:
    """Returns names of columns; raises ValueError if one is there twice, or if several have none."""
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"two columns are named {twice[:40]!r}")
    return names


def _read_decimal_commas(names: list[str], rows: Rows) -> list[str]:
    """Writes points for decimal commas in place, in columns that hold nothing but numbers; returns notes."""
    found = []
    for place, name in enumerate(names):
        cells = [row[place].strip() for row in rows]
        commas = [cell for cell in cells if _COMMA_NUMBER.fullmatch(cell)]
        if not commas or not all(_COMMA_NUMBER.fullmatch(cell) or _PLAIN_NUMBER.fullmatch(cell) for cell in cells):
            continue
        if all(_THOUSANDS.fullmatch(cell) for cell in commas):
            raise ValueError(f"{commas[0]!r} of {name!r} may be a fraction or a thousand, write it with a point")
        found.append(place)
    if found and any(_POINT_NUMBER.fullmatch(row[place].strip()) for row in rows for place in range(len(names))):
        name = names[found[0]]
        raise ValueError(f"some numbers have decimal commas (in {name!r}), others points, write all with points")
    for row in rows:
        for place in found:
            row[place] = row[place].replace(",", ".")
    return [f"decimal commas are read as points in {', '.join(names[place] for place in found)}"] if found else []
