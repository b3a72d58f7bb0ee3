# SPDX-License-Identifier: Apache-2.0
"""The command line: ``pizza attribute``, ``pizza plugins``, ``pizza doctor``.

Exit codes, for scripts: 0 it worked, 1 an unexpected failure, 2 a wrong call or configuration,
3 no valid key, 4 the model or its server failed, 5 a budget was reached, 6 a plugin is at fault,
130 interrupted.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The ``pizza`` command. typer and rich are imported here and nowhere else in the package."""
    try:
        from pizza.cli.app import run

        code = run()
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
