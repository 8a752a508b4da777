"""LanceDB and forked processes: a process that is forked from one that has used LanceDB must not use it.

Its threads do not survive a fork, and of the locks that they held some stay locked. A child that opens or reads a table
then crashes (SIGSEGV) or waits for ever, in some 1 to 30 of 100 forks; a table that the child opens itself does too.
"""

from __future__ import annotations

import os

from .errors import ForkedProcessError

_used_in = 0  # the process that has used LanceDB; 0: none has


def check_process(place: str) -> None:
    """Note that this process uses LanceDB; to be called before every use.

    Args:
        place: what is opened or read, for the error.

    Raises:
        ForkedProcessError: the process was forked after LanceDB had been used.
    """
    global _used_in
    if _used_in not in (0, os.getpid()):
        raise ForkedProcessError(
            f"{place}: process {os.getpid()} was forked from process {_used_in} after that had opened an index, and "
            "LanceDB would crash or hang here; open indexes only after the fork, or start the process with "
            "multiprocessing.get_context('spawn'); see docs/how-to/processes.md"
        )
    _used_in = os.getpid()
