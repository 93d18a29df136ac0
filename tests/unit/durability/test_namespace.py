"""The names in memory answer as the file system of this machine does."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.durability.checks import Tree, names_in
from tests.durability.namespace import Names
from tests.durability.on_nodes.application import name
from tests.durability.on_nodes.clients import Namer
from tests.durability.on_nodes.look import look

paths = st.sampled_from(Namer.FEW)
requests = st.one_of(
    st.tuples(st.sampled_from(("mkdir", "create", "symlink", "unlink", "rmdir")), st.tuples(paths)),
    st.tuples(st.sampled_from(("link", "rename", "rename")), st.tuples(paths, paths)),
    st.just(("sync", ())),
)


@settings(max_examples=150, deadline=None)
@given(asked=st.lists(requests, max_size=30))
def test_every_answer_and_every_name_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[str, tuple[str, ...]]]
) -> None:
    folder = tmp_path_factory.mktemp("names")
    root = folder / "names" / "1"
    root.mkdir(parents=True)
    names = Names()
    for do, args in asked:
        names, expected = names.after(do, args)
        try:
            name(os.fspath(root), do, list(args))
            error = 0
        except OSError as refusal:
            assert refusal.errno is not None
            error = refusal.errno
        assert (do, args, error) == (do, args, expected)
    seen = look(os.fspath(folder), [])
    assert names_in(Tree(seen["entries"], {}), "names/1") == names.shape()
