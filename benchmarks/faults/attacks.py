"""Hostile inputs against a running HTTP service and MCP server, and what must hold after each batch of them."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tansaku import Index

from .attack_inputs import Input, draw
from .heartbeat import held
from .support import ROOT, TABLE

DEADLINE_SECONDS = 10.0
SPARE_SECONDS = 10.0  # for what is not the service's: a machine that does other work too
MAX_GROWTH_BYTES = 1 << 30
MAX_ANSWER_BYTES = 1 << 16  # of an error, and over MCP: longer ones repeat what was sent
MAX_HELD_SECONDS = 2.0  # of the event loop, during which nobody is answered
BATCH, THREADS = 200, 4
NAMES = ("HTTP", "MCP")
_FRAMING_SECONDS = 0.3  # a client that waits for no more than this

QUESTION = "金閣寺は誰が建てたのか"
DOCUMENTS = [
    {
        "id": "kinkaku",
        "title": "金閣寺",
        "text": "金閣寺は足利義満が1397年に建てた。",
        "year": 1397,
        "genre": "寺",
        "tags": ["京"],
    },
    *(
        {"id": f"d{i}", "title": "", "text": f"第{i}の庭には池がある。", "year": i, "genre": "庭", "tags": ["x"]}
        for i in range(200)
    ),
]

# Places on the machine that built or runs it, and texts of Rust and Python, have no business in an answer.
INTERNAL = re.compile(
    rb"/rustc/|\.cargo|\.rs:\d|/root/|/home/|site-packages|Traceback|panicked|lance-[a-z]+[-/]|\.py\""
)


@dataclass
class Answer:
    """What came back: a status, 0 for a connection that was closed; the content, and how long it took."""

    kind: str
    status: int
    content: bytes
    seconds: float


class Server:
    """A command of tansaku in another process, its memory, and the times that its event loop was held.

    Args:
        beats: where the process notes these times.
        arguments: those of the command.
    """

    def __init__(self, beats: Path, *arguments: str) -> None:
        self._beats, self._read_to = beats, 0
        given = json.dumps({"arguments": arguments, "beats": str(beats)})
        command = [sys.executable, "-m", "benchmarks.faults", "--process", "serve", "--arguments", given]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)

    def held(self) -> tuple[float, float]:
        """The longest time since the last call that the event loop was held, and its processor time, in seconds."""
        times, self._read_to = held(self._beats, self._read_to)
        return max(times, default=(0.0, 0.0))

    def bytes_used(self, name: str = "VmRSS") -> int:
        """VmRSS is what is used now, VmHWM the most so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        return int(found[1]) * 1024 if found else 0

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def attacks(folder: Path, options: argparse.Namespace) -> list[str]:
    Index.create(folder / "db", TABLE, DOCUMENTS)
    ports = _free_ports(2)
    place = ("--db", str(folder / "db"), "--table", TABLE)
    place += ("--deadline", str(DEADLINE_SECONDS))
    http = Server(folder / "http.beats", "serve", *place, "--port", str(ports[0]))
    mcp = Server(folder / "mcp.beats", "mcp", *place, "--http", str(ports[1]))
    try:
        return _attack((http, mcp), ports, options)
    finally:
        http.close()
        mcp.close()


def _attack(servers: tuple[Server, Server], ports: tuple[int, int], options: argparse.Namespace) -> list[str]:
    failures: list[str] = []
    answers: list[Answer] = []
    with httpx.Client(timeout=DEADLINE_SECONDS + SPARE_SECONDS) as client, ThreadPoolExecutor(THREADS) as pool:
        _wait_until_ready(client, ports, servers)
        start = [server.bytes_used() for server in servers]
        for server in servers:
            server.held()  # without the times of its start
        longest = [(0.0, 0.0) for _ in servers]
        for first in range(0, options.inputs, BATCH):
            numbers = range(first, min(first + BATCH, options.inputs))
            inputs = [draw(options.seed, number) for number in numbers]
            batch = list(pool.map(lambda given: _send_and_ask(client, ports, given), inputs))
            for number, given, (answer, problems) in zip(numbers, inputs, batch, strict=True):
                answers.append(answer)
                failures += [
                    f"seed {options.seed}, input {number} ({given.kind}): {f}" for f in (*_wrong(answer), *problems)
                ]
            where = f"after input {numbers[-1]}"
            ended = [server for server in servers if server.process.poll() is not None]
            if ended:
                failures.append(f"{where}: a process ended with status {ended[0].process.returncode}")
                break
            for number, (name, server, used) in enumerate(zip(NAMES, servers, start, strict=True)):
                times = server.held()
                longest[number] = max(longest[number], times)
                if times[0] > MAX_HELD_SECONDS:
                    failures.append(f"{where}: the event loop of {name} was held for {times[0]:.1f} s")
                if server.bytes_used() > used + MAX_GROWTH_BYTES:
                    failures.append(f"{where}: {name} uses {server.bytes_used() / 2**20:,.0f} MiB")
        peaks = [server.bytes_used("VmHWM") if server.process.poll() is None else 0 for server in servers]
    _print_table(answers)
    for name, used, peak, (wall, processor) in zip(NAMES, start, peaks, longest, strict=True):
        print(f"  memory of {name}: {used / 2**20:,.0f} MiB before, at most {peak / 2**20:,.0f} MiB")
        print(f"  event loop of {name}: held for at most {wall:.2f} s, of which it worked {processor:.2f} s")
    return failures


def _send_and_ask(client: httpx.Client, ports: tuple[int, int], given: Input) -> tuple[Answer, list[str]]:
    """Send an input, and ask its server a known question right after it, while other clients send theirs."""
    answer = _send(client, ports, given)
    return answer, list(_not_as_before(client, ports, "/mcp" if given.path == "/mcp" else "/search"))


def _send(client: httpx.Client, ports: tuple[int, int], given: Input) -> Answer:
    started = time.perf_counter()
    status, content = _exchange(ports[0], given.content) if given.raw else _post(client, ports, given)
    return Answer(given.kind, status, content, time.perf_counter() - started)


def _post(client: httpx.Client, ports: tuple[int, int], given: Input) -> tuple[int, bytes]:
    port = ports[given.path == "/mcp"]
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    try:
        answer = client.post(f"http://127.0.0.1:{port}{given.path}", content=given.content, headers=headers)
    except httpx.TimeoutException:
        return -1, b""
    except httpx.HTTPError:
        return 0, b""
    return answer.status_code, answer.content


def _exchange(port: int, data: bytes) -> tuple[int, bytes]:
    """What the service sends to a client that is not patient."""
    parts: list[bytes] = []
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=SPARE_SECONDS) as connection,
    ):
        connection.sendall(data)
        connection.settimeout(_FRAMING_SECONDS)
        while part := connection.recv(1 << 16):
            parts.append(part)
    content = b"".join(parts)
    status = re.match(rb"HTTP/1\.1 (\d{3})", content)
    return int(status[1]) if status else 0, content


def _wrong(answer: Answer) -> Iterator[str]:
    if answer.status == -1 or answer.seconds > DEADLINE_SECONDS + SPARE_SECONDS:
        yield f"no answer within {answer.seconds:.1f} s"
    if answer.status == 500:
        yield f"status 500: {answer.content[:200]!r}"
    if len(answer.content) > MAX_ANSWER_BYTES and (answer.status >= 400 or answer.kind == "MCP"):
        yield f"an answer of {len(answer.content):,} bytes: {answer.content[:200]!r}"
    found = INTERNAL.search(answer.content)
    if found:
        yield f"an answer has {answer.content[max(0, found.start() - 60) : found.end() + 60]!r}"


def _not_as_before(client: httpx.Client, ports: tuple[int, int], *paths: str) -> Iterator[str]:
    """Whether the servers of these paths, by default both, still answer a question rightly."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    message["params"] = {"name": "search", "arguments": {"query": QUESTION, "k": 1}}
    asked = {"/search": {"query": QUESTION, "k": 1}, "/mcp": message}
    for path, content in asked.items():
        if paths and path not in paths:
            continue
        status, answer = _post(client, ports, Input("", path, json.dumps(content).encode()))
        if status != 200 or _first_id(json.loads(answer)) != "kinkaku":
            yield f"{path} answers a known question with {status}: {answer[:200]!r}"


def _first_id(content: Any) -> str | None:
    hits = content.get("hits") or content.get("result", {}).get("structuredContent", {}).get("hits") or [{}]
    return hits[0].get("id")


def _wait_until_ready(client: httpx.Client, ports: tuple[int, int], servers: tuple[Server, Server]) -> None:
    end = time.monotonic() + 300
    while problems := list(_try_question(client, ports)):
        if time.monotonic() > end or any(server.process.poll() is not None for server in servers):
            raise RuntimeError(f"the servers do not start: {problems}")
        time.sleep(0.2)


def _try_question(client: httpx.Client, ports: tuple[int, int]) -> list[str]:
    return list(_not_as_before(client, ports))


def _print_table(answers: list[Answer]) -> None:
    names = ("inputs", "2xx", "4xx", "5xx", "closed", "slowest")
    print("\nattacks")
    print("  " + f"{'':<11}" + "".join(f"{name:>10}" for name in names))
    of_kind: dict[str, list[Answer]] = collections.defaultdict(list)
    for answer in answers:
        of_kind[answer.kind].append(answer)
    for kind, some in of_kind.items():
        count = collections.Counter(max(answer.status, 0) // 100 for answer in some)
        slowest = max(answer.seconds for answer in some)
        counts = "".join(f"{n:>10,}" for n in (len(some), count[2], count[4], count[5], count[0]))
        print(f"  {kind:<11}{counts}{slowest:>8.1f} s")


def _free_ports(n: int) -> tuple[int, int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        first, second = (one.getsockname()[1] for one in sockets)
    return first, second
