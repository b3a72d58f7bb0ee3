# SPDX-License-Identifier: Apache-2.0
"""Attribution on request: a FastAPI application around one `pizza.Session`."""
