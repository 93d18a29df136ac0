"""What identifies an applied configuration: a short SHA-256 that every node computes alike (spec §2).

Two configurations that mean the same have the same signature: XML counts in its canonical form, without layout and
comments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from lxml import etree

LENGTH = 16


def xml_signature(tree: etree._Element) -> str:
    """The signature of an XML document: 16 hexadecimal digits."""
    copy = etree.fromstring(etree.tostring(tree, method="c14n", with_comments=False), _LAYOUT_FREE)
    return _short(hashlib.sha256(etree.tostring(copy, method="c14n")))


def files_signature(files: Iterable[tuple[str, bytes, bool]]) -> str:
    """The signature of a set of files, each (path, content, executable), in whatever order: 16 hexadecimal digits."""
    total = hashlib.sha256()
    for path, content, executable in sorted(files):
        content_hash = hashlib.sha256(content).hexdigest()
        total.update(f"{content_hash} {'x' if executable else '-'} {path}\n".encode("utf-8", "surrogateescape"))
    return _short(total)


def _short(total: hashlib._Hash) -> str:
    return total.hexdigest()[:LENGTH]


_LAYOUT_FREE = etree.XMLParser(remove_blank_text=True, remove_comments=True, remove_pis=True, resolve_entities=False)
