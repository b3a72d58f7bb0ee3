# SPDX-License-Identifier: Apache-2.0
"""``python -m pizza_embedded serve``: the embedded model as an OpenAI-compatible server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    from pizza_embedded.server import command

    parser = argparse.ArgumentParser(prog="python -m pizza_embedded", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the model on loopback")
    command.add_arguments(serve)
    arguments = parser.parse_args(argv)
    return command.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
