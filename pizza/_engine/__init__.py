# SPDX-License-Identifier: Apache-2.0
"""The scheduler and the driver: everything between a session and a backend."""
