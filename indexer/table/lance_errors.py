"""What LanceDB's errors mean. It raises ValueError and RuntimeError for everything, so only the texts differ.

All texts that tansaku depends on are here. `tests/indexer/test_lance_errors.py` provokes each of them in the installed
LanceDB, so that a release with other texts is noticed.
"""

from __future__ import annotations

# Another writer's commit came first: of a version, of another kind of change, of a table with other columns (twice).
_CONFLICTS = (
    "commit conflict",
    "incompatible transaction",
    "append with different schema",
    "not found in target schema",
)
_REMEDIES = {
    "No space left": "; make room on the disk and repeat",
    "Permission denied": "; check who may write there",
    "Read-only file system": "; choose a folder that can be written to",
    "Access Denied": "; check the credentials",
    "AccessDenied": "; check the credentials",
    "InvalidAccessKeyId": "; check the credentials",
    "SignatureDoesNotMatch": "; check the credentials",
    "NoSuchBucket": "; check the bucket's name",
}
_LINE_CHARACTERS = 400


def is_conflict(error: BaseException) -> bool:
    """Whether another writer committed first."""
    text = str(error).lower()
    return any(words in text for words in _CONFLICTS)


def is_missing_table(error: BaseException) -> bool:
    """Whether a table does not exist, or its first write was interrupted."""
    return "not found" in str(error).lower()


def is_vanished(error: BaseException) -> bool:
    """Whether a version of a table, or a file of one, is not there: `optimize` removes those that are too old."""
    text = str(error).lower()
    return "not found" in text or "no longer exists" in text


def is_existing_table(error: BaseException) -> bool:
    """Whether a table to be created exists already."""
    return "already exists" in str(error)


def is_panic(error: BaseException) -> bool:
    """Whether LanceDB has come upon a fault of its own. The class of the error cannot be imported."""
    return type(error).__name__ == "RustPanic"


def condition_problem(error: BaseException) -> str:
    """What is wrong with a condition."""
    return str(error).removeprefix("Invalid input, ").strip()


def first_line(error: BaseException) -> str:
    """The first line of an error's text, cut after 400 characters."""
    line = str(error).strip().split("\n")[0]
    return line if len(line) <= _LINE_CHARACTERS else f"{line[:_LINE_CHARACTERS]}…"


def remedy_for(error: BaseException) -> str:
    """What to do about an error, to be appended to its text; empty for unknown errors."""
    return next((remedy for cause, remedy in _REMEDIES.items() if cause in str(error)), "")
