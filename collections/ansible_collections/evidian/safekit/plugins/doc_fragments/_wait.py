# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is PRIVATE to the collection. It can have breaking changes at any time.

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  wait:
    description: Whether to wait until the state is reached.
    type: bool
    default: true
  wait_timeout:
    description:
      - How many seconds to wait at most.
      - A secondary is ready when its files are synchronised, so allow for the time of a first full copy.
    type: int
    default: 300
"""
