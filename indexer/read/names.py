"""Names of fields, as files have them and as people type them."""

from __future__ import annotations

import unicodedata

# What is not seen at the ends of a name: null, marks of byte order and of joining, and spaces without a width.
_UNSEEN = "\0\ufeff\u200b\u200c\u200d\u2060"


def field_name(name: str) -> str:
    """The name of a field in composed form (NFC), without white space and unseen characters at its ends.

    Args:
        name: the name, as a header, a key of JSON or an option has it.
    """
    stripped = unicodedata.normalize("NFC", name)
    while stripped != (shorter := stripped.strip().strip(_UNSEEN)):
        stripped = shorter
    return stripped
