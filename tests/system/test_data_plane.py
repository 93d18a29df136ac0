"""The data plane dies: nothing that was acknowledged is lost, and no mount stays behind."""

from __future__ import annotations

from tests.system.mirror import FOLDER, NAME, Mirror
from tests.system.product import mark, messages, safekit, wait_state

UNIT = f"safekit-rfs@{NAME}"


def test_death_of_the_data_plane_of_the_primary_moves_the_service(mirror: Mirror) -> None:
    old, new = mirror.roles()
    mirror.writer.start()
    mirror.writer.await_promise(50)
    old.run(["systemctl", "kill", "--signal=KILL", UNIT])
    wait_state(new, NAME, "ALONE,PRIM")
    mirror.writer.await_promise()
    mirror.wait_roles(new)
    written = mirror.writer.stop()
    for node in mirror.nodes:
        mirror.assert_kept(written.promised, node)
    mirror.assert_same_trees()
    for node in mirror.nodes:
        assert node.out(f"grep -c ' {FOLDER} ' /proc/self/mounts") == "1"


def test_death_of_the_data_plane_of_the_secondary_disturbs_no_client(mirror: Mirror) -> None:
    primary, secondary = mirror.roles()
    seen = mark(primary, NAME)
    mirror.writer.start()
    secondary.run(["systemctl", "kill", "--signal=KILL", UNIT])
    wait_state(primary, NAME, "ALONE,PRIM")
    mirror.writer.await_promise()
    mirror.wait_roles(primary)
    written = mirror.writer.stop()
    assert written.trouble == ()
    assert any("Local state ALONE" in said for said in messages(primary, NAME, seen))
    for node in mirror.nodes:
        mirror.assert_kept(written.promised, node)
        assert node.out(f"grep -c ' {FOLDER} ' /proc/self/mounts") == "1"
    mirror.assert_same_trees()


def test_a_stopped_module_leaves_the_directory_to_its_owner(mirror: Mirror) -> None:
    primary, secondary = mirror.roles()
    for node in (secondary, primary):
        safekit(node, f"stop -m {NAME}")
        wait_state(node, NAME, "STOP", substate="NotReady")
    for node in mirror.nodes:
        assert not node.succeeds(f"grep -q ' {FOLDER} ' /proc/self/mounts")
        node.run(f"test -s {FOLDER}/ledger || test -d {FOLDER}")
