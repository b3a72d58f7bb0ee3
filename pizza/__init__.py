# SPDX-License-Identifier: Apache-2.0
"""Which parts of this prompt made the model say that?"""
