# SPDX-License-Identifier: Apache-2.0
"""Cannot be imported: as after an update of something that it needs."""

import a_package_that_nobody_has

__all__ = ["a_package_that_nobody_has"]
