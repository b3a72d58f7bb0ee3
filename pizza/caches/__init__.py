# SPDX-License-Identifier: Apache-2.0
"""Response caches."""


class CacheWarning(UserWarning):
    """A cached answer cannot be used and is asked for again."""
