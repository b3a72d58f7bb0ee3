# SPDX-License-Identifier: Apache-2.0
"""What kinds of models there are, and what each can be asked."""
