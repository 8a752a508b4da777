"""Dates and times as people write them in conditions."""

from __future__ import annotations

import datetime

DATE_FORMS = {
    "date": "write it as '2026-11-30'",
    "timestamp": "write it as '2026-11-30 09:00:00', with '+09:00' or 'Z' behind it if the column has a time zone",
    "time": "write it as '09:00:00'",
}


def as_date(text: str) -> datetime.date | None:
    """A date as people write it, such as 2026-11-30, 2026/11/30 or 2026年11月30日; None if it is none."""
    plain = text.strip().replace("年", "-").replace("月", "-").removesuffix("日").replace("/", "-")
    parts = plain.split("-")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts) or len(parts[0]) != 4:
        return None
    try:
        return datetime.date(*map(int, parts))
    except ValueError:
        return None


def as_timestamp(text: str) -> datetime.datetime | None:
    """A point in time as people write it, such as 2026-11-30 09:00 or 2026-11-30T09:00:00+09:00; None if it is none."""
    plain = text.strip().replace("T", " ", 1)
    day, _, clock = plain.partition(" ")
    date = as_date(day)
    if date is None:
        return None
    if not clock.strip():
        return datetime.datetime.combine(date, datetime.time())
    time = as_time(clock)
    return None if time is None else datetime.datetime.combine(date, time)


def as_time(text: str) -> datetime.time | None:
    """A time of day, such as 09:00 or 09:00:00.5; None if it is none."""
    plain = text.strip()
    if plain[-1:] in ("Z", "z"):
        plain = f"{plain[:-1]}+00:00"
    head, dot, tail = plain.partition(".")
    if dot:  # Python 3.10 reads three or six digits only
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        plain = f"{head}.{digits[:6]:0<6}{tail[len(digits) :]}"
    try:
        return datetime.time.fromisoformat(plain)
    except ValueError:
        return None
