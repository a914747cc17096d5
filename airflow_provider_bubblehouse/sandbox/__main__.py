"""The command line: ``python -m airflow_provider_bubblehouse.sandbox``."""

from __future__ import annotations

import argparse
import errno
import math
import shlex
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_PORT = 8765
_EXTRA = ("starlette", "uvicorn")  # the packages of the extra `sandbox`


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a sandbox until SIGINT or SIGTERM.

    :param arguments: the command line; None for that of the process.
    :return: the exit code.
    """
    try:
        from airflow_provider_bubblehouse.sandbox.server import Sandbox
    except ModuleNotFoundError as missing:
        if missing.name not in _EXTRA:
            raise
        return _fail("The sandbox needs an extra: pip install 'airflow-provider-bubblehouse[sandbox]'.")
    parser = _parser()
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sandbox = Sandbox(port=options.port, shop=options.shop, lag=options.lag, keep_bodies=False)
    try:
        sandbox.script(*options.script)
        sandbox.rates(dict(options.rate), seed=options.seed)
    except ValueError as error:
        parser.error(str(error))
    try:
        with sandbox:
            print(f"The Bubblehouse sandbox listens at {sandbox.url}")
            print(f"export AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT={shlex.quote(sandbox.connection())}")
            print("Paste the line above into the shell in which Airflow runs, or fill in the connection form:")
            print(f"open {sandbox.url} for its values, and later to see what arrives. Ctrl-C stops it.", flush=True)
            stop.wait()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _fail(f"Port {options.port} is in use; choose another with --port, or 0 for any free port.")
        return _fail(f"Port {options.port} cannot be used: {error.strerror}.")
    return 0


def _parser() -> argparse.ArgumentParser:
    from airflow_provider_bubblehouse.sandbox import faults

    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_bubblehouse.sandbox",
        description="A local stand-in for the Bubblehouse API, on 127.0.0.1 only. It keeps customers in memory.",
        epilog=faults.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=_port, default=DEFAULT_PORT, help=f"default {DEFAULT_PORT}; 0 for any free port")
    add("--shop", default="demo-shop", help="the shop slug; default demo-shop")
    add("--lag", type=_seconds, default=0.0, metavar="SECONDS", help="from acceptance to processing; default 0")
    add("--script", nargs="+", default=[], metavar="FAULT", help="faults for the first calls, in order")
    add("--rate", type=_rate, action="append", default=[], metavar="FAULT=P", help="a random fault; repeatable")
    add("--seed", type=int, help="makes random faults repeatable")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise argparse.ArgumentTypeError("seconds must be a number of at least 0")
    return seconds


def _rate(text: str) -> tuple[str, float]:
    fault, equals, probability = text.rpartition("=")
    if not equals:
        raise argparse.ArgumentTypeError("a rate is FAULT=P, such as 503=0.1")
    return fault, float(probability)


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
