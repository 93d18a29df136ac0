# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is PRIVATE to the collection. It can have breaking changes at any time.

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
requirements:
  - The runtime, installed by the role P(evidian.safekit.runtime#role), and C(root) on the node.
options:
  socket:
    description: The unix socket of C(safekitd) on the node.
    type: path
    default: /run/safekit/safekitd.sock
"""
