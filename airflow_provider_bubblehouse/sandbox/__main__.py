"""The sandbox on the command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading

from airflow_provider_bubblehouse.sandbox import faults
from airflow_provider_bubblehouse.sandbox.server import Sandbox

_SECRET_VARIABLE = "BUBBLEHOUSE_SANDBOX_SHARED_SECRET"  # noqa: S105  a name, not a secret


def main() -> int:
    """Serve until interrupted; return the process's exit code."""
    options = _parser().parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sandbox = Sandbox(
        port=options.port,
        shop=options.shop,
        key_id=options.key_id,
        shared_secret=os.environ.get(_SECRET_VARIABLE),
        database=options.database,
        lag=options.lag,
        keep_customers=False,
    )
    try:
        sandbox.order(options.fault, dict(options.rate), seed=options.seed)
        with sandbox:
            print(f"The sandbox stands in for Bubblehouse at {sandbox.url}, until Ctrl-C. Its connection:")
            print(f"export AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT='{sandbox.connection()}'", flush=True)
            stop.wait()
    except faults.UnknownFaultError as error:
        return _fail(f"{error}; see --help.")
    except OSError as error:
        return _fail(f"Port {options.port} cannot be used ({error.strerror}); choose another with --port.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_bubblehouse.sandbox",
        description="A local stand-in for the Bubblehouse API, on loopback only.",
        epilog=faults.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one (default: %(default)s)")
    parser.add_argument("--shop", default="demo-shop", help="the shop slug (default: %(default)s)")
    parser.add_argument(
        "--key-id",
        default="sandbox",
        help=f"names the shared secret, which is new at each start unless {_SECRET_VARIABLE} holds one in base64",
    )
    parser.add_argument("--database", default=":memory:", help="SQLite file to keep the customers in")
    parser.add_argument("--lag", type=float, default=0.0, help="seconds until pushed rows are processed")
    parser.add_argument("--fault", action="append", default=[], help="a fault for the next call; may be repeated")
    parser.add_argument(
        "--rate", type=_rate, action="append", default=[], metavar="FAULT=P", help="a fault by chance; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=0, help="makes --rate repeatable")
    return parser


def _rate(text: str) -> tuple[str, float]:
    fault, _, probability = text.rpartition("=")
    return fault, float(probability)


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
