"""The entry point: `billing` and `python -m billing_cli`."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line; a Ctrl-C while it is being imported ends it in one line, too."""
    signal.signal(signal.SIGINT, _end)
    from billing_cli.cli.entry import main as run  # noqa: PLC0415 - a signal may come before

    run()


def _end(signal_number: int, _frame: object) -> None:
    """End at once: an exception could be lost among the imports."""
    try:
        os.write(2, b"Error: ended by SIGINT; nothing was done\n")
    finally:
        os._exit(128 + signal_number)


if __name__ == "__main__":
    main()
