# SPDX-License-Identifier: Apache-2.0
"""Serves the embedded model as an OpenAI-compatible API on loopback; needs aiohttp.

It answers what the real API answers, in the same shapes, and can be told to be slow, limited or
unreliable, so that a client can be tried against everything that a real server does.
"""
