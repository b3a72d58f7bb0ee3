# SPDX-License-Identifier: Apache-2.0
"""``python -m pizza.cli``: the same as the command ``pizza``."""

from pizza.cli import main

if __name__ == "__main__":
    main()
