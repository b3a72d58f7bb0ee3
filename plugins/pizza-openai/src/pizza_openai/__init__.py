# SPDX-License-Identifier: Apache-2.0
"""pizza backend for OpenAI and every OpenAI-compatible server."""
