"""A folder of encoded rows that are not in the table yet. It survives a kill, so that an interrupted write can resume.

    plan.json           what is built: options, hashes of the source
    vectors-00000012.arrow   token vectors of a chunk of the sample, until the codec is trained on them
    codec.npz           the codec, once it is trained
    unit-00000012.json  rows that are fragments in the table's folder already: their chunks, and Lance's metadata
    sample.arrow        codes of the documents that it was trained on, so that they are not encoded twice
    chunk-00000012.arrow   rows of the table, one file for each chunk of `scan.DOCUMENTS_PER_CHUNK` documents
    caught-up.txt       only in a rebuild: the version of the table up to which changes of other writers are included
    rows.txt            number of rows given to LanceDB in the commit that makes the table

Each file is written under another name and then renamed. All but the numbers have a checksum; rows and codes also have
the name of their file and the write_id, so that a file in the place of another is noticed.
"""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import pyarrow as pa

from ...onnx_export.files import atomic_path, write_atomically
from ...onnx_export.retry import retrying
from ..codec.codec import ResidualCodec, check_numbers
from ..errors import BusyError, ResumeError, StorageError
from ..plain_files import read_plain
from ..read.scan import DOCUMENTS_PER_CHUNK
from ..table.codec_table import Fit
from ..table.database import storage_errors
from ..table.locks import LOCK_MODE, LOCK_VARIABLE, lock_seconds

_REPORT_KEY = b"tansaku.chunk"
_CODEC_KEY = b"tansaku.codec"
_PLACE_KEY = b"tansaku.staged"  # name of the file and write_id
_PRIVATE = "work-"  # prefix of folders that only one call uses
_LEFT_OVER_SECONDS = 3600  # age at which a private folder is removed, if no process uses it


class LeftWork(NamedTuple):
    """What an interrupted write has left.

    Attributes:
        folder: where it lies.
        documents: about how many documents have been encoded, or 0 if none has.
    """

    folder: Path
    documents: int


def left_work(side_folder: Path) -> LeftWork | None:
    """The work that an interrupted write of a table has left; None if there is none."""
    found = []
    for staging in (Staging(side_folder, merges=merges) for merges in (False, True)):
        if staging._has_work():
            chunks = sum(len(list(staging.folder.glob(f"{kind}-*.arrow"))) for kind in ("vectors", "chunk"))
            chunks += len(staging.fragments().reports)
            found.append(LeftWork(staging.folder, chunks * DOCUMENTS_PER_CHUNK))
    return found[0] if found else None


class Fragments(NamedTuple):
    """Rows that are in fragments of the table's folder, and not yet in the table.

    Attributes:
        by_chunk: Lance's metadata of fragments, as JSON, by the number of their first chunk.
        reports: the report on each chunk, by its number.
    """

    by_chunk: dict[int, list[str]]
    reports: dict[int, dict[str, Any]]

    @property
    def metadata(self) -> list[str]:
        """Of all fragments, in the order of their chunks."""
        return [fragment for number in sorted(self.by_chunk) for fragment in self.by_chunk[number]]


class Staging:
    """A folder of staged rows, locked for this process; use it as a context manager.

    Each table has two such folders, so that an interrupted write can be found and continued: one for builds, which
    create or replace the table, and one for merges, which add rows. If another process uses the folder, a merge or a
    call that does not resume gets a private folder, which is always removed at the end.

    Args:
        side_folder: the table's side folder, see `database.side_folder`.
        resume: continue what an interrupted write left; False discards it.
        merges: the work is a merge.

    Attributes:
        folder: path of the folder.

    Raises:
        BusyError: another process uses the folder, and this build would have to resume there. It is not waited for,
            unless ``TANSAKU_LOCK_SECONDS`` says for how long.
        ResumeError: an interrupted merge is left, and this build would make it useless.
        StorageError: the folder cannot be made.
        InputError: ``TANSAKU_LOCK_SECONDS`` is not a number from 0.
    """

    def __init__(self, side_folder: Path, *, resume: bool = True, merges: bool = False) -> None:
        self._side = side_folder
        self._resume = resume
        self._merges = merges
        self._finished = False
        self._known_id: int | None = None
        self._fragments: Fragments | None = None
        self._use("merge" if merges else "build")

    def _use(self, name: str) -> None:
        self.folder = self._side / name
        self._lock = filelock.FileLock(self._side / f"{name}.lock", mode=LOCK_MODE)

    def __enter__(self) -> Staging:
        waits = self._resume and not self._merges
        with storage_errors(f"folder {self._side}"):
            if not self._acquire(lock_seconds(0.0) if waits else 0.0):
                if waits:
                    raise BusyError(
                        f"{self._lock.lock_file}: another process is building this table and holds this lock; wait "
                        f"until it ends, or say how many seconds to wait for it ({LOCK_VARIABLE})"
                    )
                self._use(f"{_PRIVATE}{secrets.token_hex(8)}")
                self._acquire()
            try:
                self._remove_left_overs()
                if not self._merges:
                    self._settle_merges()
                self.folder.mkdir(exist_ok=True)
                if not self._resume:
                    self.discard()
            except BaseException:
                self._release()
                raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if self._finished or self.folder.name.startswith(_PRIVATE) or not self._has_work():
                self._clear()
        finally:
            self._release()
        with contextlib.suppress(OSError):  # not empty
            self._side.rmdir()

    def begin(self, plan: dict[str, Any]) -> int:
        """Start the work that ``plan`` describes, or continue it.

        Args:
            plan: everything that the rows depend on, such as options and hashes of the source, as JSON values.

        Returns:
            The write_id for the rows of this work.

        Raises:
            ResumeError: the interrupted write in this folder had another plan.
            StorageError: the folder cannot be written to.
        """
        path = self.folder / "plan.json"
        earlier = self._earlier()
        if earlier is None or not self._has_work():
            self.discard()  # chunks without a plan belong to other documents
            write_id = secrets.randbits(62) + 1
            content = json.dumps({"write_id": write_id, "plan": plan})
            with storage_errors(f"folder {self.folder}"):
                write_atomically(path, f"{zlib.crc32(content.encode()):08x} {content}")
            self._known_id = write_id
            return write_id
        before, now = earlier["plan"], json.loads(json.dumps(plan))
        changed = [key for key in now | before if before.get(key) != now.get(key)]
        if changed:
            details = ", ".join(
                f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed if key != "source"
            )
            what = [details] if details else []
            what += ["the documents have changed"] if "source" in changed else []
            raise ResumeError(
                f"the interrupted write in {self.folder} cannot be continued: {'; '.join(what)}. Repeat the call with "
                "the same documents and options, or discard the work (resume=False, or --no-resume on the command line)"
            )
        self._known_id = earlier["write_id"]
        return earlier["write_id"]

    def write_id(self) -> int | None:
        """The write_id of the work in this folder; None without such work."""
        if self._known_id is None:
            self._known_id = (self._earlier() or {"write_id": None})["write_id"]
        return self._known_id

    def earlier_plan(self) -> dict[str, Any]:
        """The plan of the interrupted work in this folder; empty without such work."""
        return (self._earlier() or {"plan": {}})["plan"]

    def note(self, name: str, number: int) -> None:
        """Store a number.

        Args:
            name: name of the number.
            number: the number.

        Raises:
            StorageError: the folder cannot be written to.
        """
        with storage_errors(f"folder {self.folder}"):
            write_atomically(self.folder / f"{name}.txt", str(number))

    def noted(self, name: str) -> int | None:
        """The number that `note` stored last under ``name``; None if it stored none."""
        try:
            return int(read_plain(self.folder / f"{name}.txt"))
        except (OSError, ValueError):
            return None

    def discard(self) -> None:
        """Remove what an interrupted write left.

        Raises:
            StorageError: the folder cannot be made again.
        """
        self._known_id = self._fragments = None
        with storage_errors(f"folder {self.folder}"):
            self._clear()
            self.folder.mkdir(exist_ok=True)

    def finish(self) -> None:
        """Declare the work done: the rows are in the table, and the folder is removed at the end."""
        self._finished = True

    def load_codec(self) -> tuple[ResidualCodec, Fit] | None:
        """The codec that was trained before the interruption, and its fit; None if there is no readable one."""
        try:
            sample = self.load_sample()
            content = io.BytesIO(read_plain(self.folder / "codec.npz"))
            with np.load(content, allow_pickle=False) as arrays:
                codec = ResidualCodec(arrays["centroids"], arrays["groups"], arrays["codewords"])
                fit = Fit(*arrays["fit"].tolist())
            check_numbers(codec)
            of_sample = (sample.schema.metadata or {}).get(_CODEC_KEY, b"").decode()
            return (codec, fit) if codec.codec_id == of_sample else None
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # missing or damaged
            return None

    def save_codec(self, codec: ResidualCodec, fit: Fit, sample: pa.Table) -> None:
        """Store the codec and the codes of its sample, and remove rows that were staged with another codec.

        Args:
            codec: the codec.
            fit: how well it fits its sample.
            sample: the codes of the sample, with a column ``position``.

        Raises:
            StorageError: the folder cannot be written to.
        """
        with storage_errors(f"folder {self.folder}"):
            for chunk in (*self.folder.glob("chunk-*.arrow"), *self.folder.glob("unit-*.json")):
                chunk.unlink()
            self._write("sample.arrow", sample.replace_schema_metadata({_CODEC_KEY: codec.codec_id}))
            with atomic_path(self.folder / "codec.npz") as making, making.open("wb") as file:
                np.savez(
                    file,
                    centroids=codec.centroids,
                    groups=codec.groups,
                    codewords=codec.codewords,
                    fit=np.array([fit.mean, fit.low]),
                )
            for vectors in self.folder.glob("vectors-*.arrow"):
                vectors.unlink()
        self._fragments = None

    def write_vectors(self, number: int, vectors: Sequence[np.ndarray], truncated: Sequence[bool]) -> None:
        """Store the token vectors of one chunk of the sample, until `save_codec`.

        Args:
            number: the chunk's number, from 0.
            vectors: float32 (tokens, dim), of each document.
            truncated: whether its text was cut.

        Raises:
            StorageError: the folder cannot be written to.
        """
        columns = {
            "vectors": pa.array(
                [np.ascontiguousarray(matrix, "<f4").tobytes() for matrix in vectors], pa.large_binary()
            ),
            "dim": pa.array([matrix.shape[1] for matrix in vectors], pa.int32()),
            "truncated": pa.array(truncated, pa.bool_()),
        }
        with storage_errors(f"folder {self.folder}"):
            self._write(_vectors_name(number), pa.table(columns))

    def load_vectors(self, number: int) -> tuple[list[np.ndarray], list[bool]] | None:
        """What `write_vectors` stored as chunk ``number``; None if that is missing or damaged."""
        try:
            rows = self._read(_vectors_name(number)).to_pylist()
            vectors = [np.frombuffer(row["vectors"], "<f4").reshape(-1, row["dim"]) for row in rows]
        except (OSError, KeyError, ValueError):
            return None
        return vectors, [row["truncated"] for row in rows]

    def load_sample(self) -> pa.Table:
        """The codes that `save_codec` stored.

        Raises:
            OSError: they are missing.
            ValueError: they are damaged.
        """
        return self._read("sample.arrow")

    def write_chunk(self, number: int, rows: pa.RecordBatch, report: dict[str, Any]) -> None:
        """Store the rows of one chunk, and a report on them.

        Args:
            number: the chunk's number, from 0.
            rows: the rows.
            report: counts and rejects, as JSON values.

        Raises:
            StorageError: the folder cannot be written to.
        """
        table = pa.Table.from_batches([rows])
        with storage_errors(f"folder {self.folder}"):
            self._write(_chunk_name(number), table.replace_schema_metadata({_REPORT_KEY: json.dumps(report)}))

    def write_fragments(self, numbers: Sequence[int], fragments: Sequence[str], reports: Sequence[dict]) -> None:
        """Store that rows of chunks are in fragments.

        Args:
            numbers: the numbers of the chunks.
            fragments: Lance's metadata of the fragments.
            reports: the report on each chunk.

        Raises:
            StorageError: the folder cannot be written to.
        """
        name = f"unit-{numbers[0]:08d}.json"
        content = json.dumps([name, self.write_id(), [*numbers], [*fragments], [*reports]])
        with storage_errors(f"folder {self.folder}"):
            write_atomically(self.folder / name, f"{zlib.crc32(content.encode()):08x} {content}")
        self._add_fragments(self.fragments(), content)

    def fragments(self) -> Fragments:
        """What `write_fragments` has stored. Files that are damaged, or in the place of others, are left out."""
        if self._fragments is None:
            found = Fragments({}, {})
            for path in sorted(self.folder.glob("unit-*.json")):
                try:
                    checksum, content = read_plain(path).decode().split(" ", 1)
                except (OSError, ValueError):
                    continue
                if f"{zlib.crc32(content.encode()):08x}" == checksum:
                    self._add_fragments(found, content, path.name)
            self._fragments = found
        return self._fragments

    def keep_fragments(self, is_there: Callable[[str], bool]) -> None:
        """Forget the units that have a fragment whose file is gone; their documents are encoded again.

        Args:
            is_there: whether the file of a fragment is there, by its metadata.
        """
        for path in sorted(self.folder.glob("unit-*.json")):
            found = self.fragments().by_chunk.get(int(path.stem.removeprefix("unit-")), [])
            if not all(map(is_there, found)):
                path.unlink()
                self._fragments = None

    def _add_fragments(self, known: Fragments, content: str, name: str | None = None) -> None:
        found, write_id, numbers, fragments, reports = json.loads(content)
        if name in (None, found) and write_id == self.write_id() and not known.reports.keys() & {*numbers}:
            known.by_chunk[numbers[0]] = fragments
            known.reports.update(zip(numbers, reports, strict=True))

    def chunk_report(self, number: int) -> dict[str, Any] | None:
        """The report on chunk ``number``; None if the chunk is missing or damaged."""
        if number in self.fragments().reports:
            return self.fragments().reports[number]
        try:
            return json.loads((self._read(_chunk_name(number)).schema.metadata or {})[_REPORT_KEY])
        except (OSError, KeyError, ValueError):
            return None

    def batches(self, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
        """Read the rows of all chunks.

        Args:
            schema: the table's schema.
            rows: the expected number of rows.

        Yields:
            Batches of rows in order; one chunk is in memory.

        Raises:
            StorageError: another number of rows was found, or a chunk is damaged or in the place of another.
        """
        left = rows
        with storage_errors(f"folder {self.folder}"):
            for number in range(len(list(self.folder.glob("chunk-*.arrow")))):
                for batch in self._read(_chunk_name(number)).to_batches():
                    left -= batch.num_rows
                    # By name: the order of columns is another if one was added before an interruption.
                    yield pa.RecordBatch.from_arrays([batch.column(name) for name in schema.names], schema=schema)
        if left:
            raise StorageError(
                f"folder {self.folder}: {rows - left:,} rows in its chunks, expected {rows:,}; repeat the call"
            )

    def _acquire(self, seconds: float = 0.0) -> bool:
        """Lock the folder; False if another process has locked it for longer than ``seconds``."""
        # Other processes remove the side folder when they leave it empty. If that happens before the lock file is
        # made, FileNotFoundError is raised; if it happens within mkdir, mkdir raises FileExistsError.
        try:
            for attempt in retrying((FileNotFoundError, FileExistsError), tries=12, first_pause=0.001):
                with attempt:
                    self._side.mkdir(parents=True, exist_ok=True)
                    self._lock.acquire(timeout=seconds)
        except filelock.Timeout:
            return False
        return True

    def _release(self) -> None:
        with contextlib.suppress(OSError):
            Path(self._lock.lock_file).unlink()
        self._lock.release()

    def _settle_merges(self) -> None:
        """Discard an interrupted merge, or raise ResumeError if this call resumes; a merge that still runs is kept."""
        left = Staging(self._side, merges=True)
        if not left.folder.exists() or not left._acquire():
            return
        try:
            if left._has_work() and self._resume:
                raise ResumeError(
                    f"the interrupted {left.earlier_plan().get('work')} in {left.folder} would be lost. Repeat that "
                    "call first, or discard its work (resume=False, or --no-resume on the command line)"
                )
            left._clear()
        finally:
            left._release()

    def _has_work(self) -> bool:
        """Whether there is work to continue: a plan, and vectors of the sample, a codec or rows."""
        made = ("codec.npz", "vectors-*.arrow", "chunk-*.arrow", "unit-*.json")
        return any(any(self.folder.glob(name)) for name in made) and self._earlier() is not None

    def _earlier(self) -> dict[str, Any] | None:
        try:
            checksum, content = read_plain(self.folder / "plan.json").decode().split(" ", 1)
        except (OSError, ValueError):
            return None
        return json.loads(content) if f"{zlib.crc32(content.encode()):08x}" == checksum else None

    def _clear(self) -> None:
        # The plan is removed first: after an interruption here, the other files belong to no plan and are ignored.
        with contextlib.suppress(OSError):
            (self.folder / "plan.json").unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, table: pa.Table) -> None:
        place = json.dumps([name, self.write_id()])
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _PLACE_KEY: place})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        content = sink.getvalue()
        with atomic_path(self.folder / name) as making, making.open("wb") as file:
            file.write(content)
            file.write(zlib.crc32(content).to_bytes(4, "little"))

    def _read(self, name: str) -> pa.Table:
        """Raises ValueError if the file is not as it was written, or was written as another."""
        table = _read(self.folder / name)
        if json.loads((table.schema.metadata or {}).get(_PLACE_KEY, b"null")) != [name, self.write_id()]:
            raise ValueError(f"{self.folder / name} has taken the place of another file")
        return table

    def _remove_left_overs(self) -> None:
        for lock_file in self._side.glob(f"{_PRIVATE}*.lock"):
            lock = filelock.FileLock(lock_file)
            with contextlib.suppress(OSError, filelock.Timeout):
                if lock_file.stat().st_mtime > time.time() - _LEFT_OVER_SECONDS:
                    continue
                lock.acquire(timeout=0)
                shutil.rmtree(lock_file.with_suffix(""), ignore_errors=True)
                lock_file.unlink(missing_ok=True)
                lock.release()


def _chunk_name(number: int) -> str:
    return f"chunk-{number:08d}.arrow"


def _vectors_name(number: int) -> str:
    return f"vectors-{number:08d}.arrow"


def _read(path: Path) -> pa.Table:
    """Read a file that `Staging` wrote; raises ValueError if it is damaged.

    It is read, not mapped: what has been checked does not change any more.
    """
    content = read_plain(path)
    if len(content) < 4 or zlib.crc32(memoryview(content)[:-4]) != int.from_bytes(content[-4:], "little"):
        raise ValueError(f"{path} is damaged")
    table = pa.ipc.open_file(pa.py_buffer(content).slice(0, len(content) - 4)).read_all()
    table.validate(full=True)  # the checksum says that nothing was damaged, not who wrote it
    return table
