"""What reading remote objects costs: a pair on a server on this machine, against fetching the same ranges and no more."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import HERE, Bench, Figure, Measured, ratio, times
from measure import Command, MeasureError, alternate

NAME = "256mb"
SIDES = ("old.safetensors", "new.safetensors")
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
MODULES = {"http": "obstore", "s3": "obstore, moto.server"}


@contextmanager
def serving(bench: Bench, *flags: str) -> Iterator[str]:
    """The address of a server that has the pair, ended by kill."""
    command = [bench.peer_python, str(HERE / "object_server.py"), str(bench.folder / NAME), *flags]
    environment = {**os.environ, **KEYS}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            if not address:
                raise MeasureError("the server does not start")
            yield address
        finally:
            process.kill()


def comparing(bench: Bench, kind: str, address: str) -> Command:
    """The command that compares the pair on a server."""
    where = f"s3://{NAME}" if kind == "s3" else f"{address}/{NAME}"
    return ["env", *told(address), *bench.diffai, *(f"{where}/{side}" for side in SIDES), "--no-progress"]


def told(address: str) -> list[str]:
    """What the environment says of an S3 server."""
    return [f"{name}={value}" for name, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items()]


def write_ranges(bench: Bench, log: Path) -> None:
    """Write down what a comparison of the pair asks for."""
    with serving(bench, "--log", str(log)) as address:
        subprocess.run(comparing(bench, "http", address), check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = [line for line in log.read_text().splitlines() if line.split()[0].endswith(SIDES)]
    log.write_text("".join(f"{line}\n" for line in lines))


def against_fetching(kind: str) -> Callable[[Bench], Measured]:
    """The pair on a server, against its ranges fetched by the same client and thrown away."""

    def measure(bench: Bench) -> Measured:
        if subprocess.run([bench.peer_python, "-c", f"import {MODULES[kind]}"], check=False, capture_output=True).returncode:
            raise MeasureError(f"{MODULES[kind]}: not installed")
        pair = bench.pair(NAME)
        log = pair[0].with_name("ranges.log")
        write_ranges(bench, log)
        with serving(bench, *(["--s3"] if kind == "s3" else [])) as address:
            fetch = [bench.peer_python, str(HERE / "peers" / "fetch_ranges.py"), kind, address, str(log)]
            mine, peer = comparing(bench, kind, address), ["env", *told(address), *fetch]
            bench.prime(mine)
            runs = alternate([mine, peer], [bench.rounds] * 2)
        address = "s3:/" if kind == "s3" else "http://127.0.0.1"
        shown = [*bench.diffai, *(f"{address}/{NAME}/{side}" for side in SIDES)], [*fetch[:3], "ADDRESS", "ranges.log"]
        return ratio(runs[0], runs[1], shown)

    return measure


REMOTE_FIGURES = tuple(
    Figure(kind, f"254 MB a side {where}, against fetching the same ranges", times(1.3), against_fetching(kind))
    for kind, where in (("http", "on a web server on this machine"), ("s3", "on an S3-compatible server on this machine"))
)
