"""Import every module, make an index and search it, where tansaku finds only the names that Windows has.

Run as a script, in an empty folder. Other packages keep the names of POSIX: their code for Windows does not run here.
What differs between file systems cannot be seen so.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import os
import pkgutil
import signal
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# https://docs.python.org/3/library/os.html and signal.html: "Availability: Unix".
MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "posix")
OF_OS = (
    *("fork", "forkpty", "register_at_fork", "wait", "wait3", "wait4", "killpg", "nice", "getloadavg"),
    *("sysconf", "uname"),
    *("getuid", "geteuid", "getgid", "getegid", "getgroups", "getpgid", "setsid", "setuid", "initgroups"),
    *("pread", "preadv", "pwrite", "pwritev", "readv", "writev", "sendfile", "copy_file_range", "posix_fallocate"),
    *("posix_fadvise", "fdatasync", "fchmod", "fchown", "chown", "lchown", "statvfs", "fstatvfs", "sync", "chroot"),
    *("sched_getaffinity", "sched_setaffinity", "mkfifo", "mknod", "memfd_create", "getrandom", "openpty"),
    *("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY", "O_SYNC", "O_DSYNC", "O_TMPFILE", "O_PATH"),
)
OF_SIGNAL = ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGPIPE", "SIGCHLD", "alarm")
OF_SIGNAL += ("setitimer", "pthread_sigmask", "pthread_kill", "sigwait")
FOLDERS = ("onnx_export", "indexer", "plugin", "training")


def names() -> list[str]:
    """The modules of tansaku."""
    found = ["tansaku"]
    for folder in FOLDERS:
        package = importlib.import_module(f"tansaku.{folder}")
        found += [module.name for module in pkgutil.walk_packages(package.__path__, f"tansaku.{folder}.")]
    return [name for name in found if not name.endswith("__main__")]


def take_away() -> None:
    """From here on, modules of tansaku that are imported find no module and no name that Windows has not."""
    fewer = {"os": types.ModuleType("os"), "signal": types.ModuleType("signal")}
    for owner, gone in ((os, OF_OS), (signal, OF_SIGNAL)):
        kept = {name: value for name, value in vars(owner).items() if name not in gone}
        fewer[owner.__name__].__dict__.update(kept)
    everything = builtins.__import__

    def import_less(name: str, given: Mapping[str, Any] | None = None, *more: Any, **named: Any) -> Any:
        if given and str(given.get("__name__")).split(".")[0] == "tansaku":
            if name in MODULES:
                raise ModuleNotFoundError(f"there is no module {name} on Windows")
            if name in fewer:
                return fewer[name]
        return everything(name, given, *more, **named)

    builtins.__import__ = import_less
    for name in [name for name in sys.modules if name.split(".")[0] == "tansaku"]:
        del sys.modules[name]


def main() -> None:
    take_away()
    from tansaku import MissingExtraError

    for name in names():
        with contextlib.suppress(MissingExtraError):
            importlib.import_module(name)
    from tansaku import Index, Rejects, Searcher, Source
    from tansaku.plugin.serving.connections import max_connections

    seen = vars(sys.modules["tansaku.onnx_export.cores"])["os"]
    assert not hasattr(seen, "sched_getaffinity"), "the names are there after all"
    documents = [{"id": name, "text": f"{name}の寺"} for name in ("京都", "奈良")]
    index = Index.create("db", "t", documents)
    Path("more.jsonl").write_text('{"id": "東京", "text": "東京の塔"}\n{"id": 1}\n', encoding="utf-8")
    with open("more.jsonl", encoding="utf-8") as sys.stdin, Rejects("rejects") as rejects:
        index.add(Source("-", format="jsonl"), rejects=rejects)
    index.upsert(documents)
    index.delete(["奈良"])
    index.rebuild()
    index.optimize()
    index.check()
    assert [hit.id for hit in Searcher.open("db", "t").search("塔", k=1)] == ["東京"]
    assert (len(index), len(rejects)) == (2, 1)
    assert max_connections() > 0


if __name__ == "__main__":
    main()
