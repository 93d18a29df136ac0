"""What an administrator can say about the replication, on nodes: schedules, policies, exclusions, checks, callbacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nodes import Lab, wait_for
from tests.system.product import mark, package, safekit, shown, state, wait_state
from tests.system.replicated import FOLDER, NAME, Replicated, replicated_module

UNIT = f"safekit-rfs@{NAME}"


@pytest.fixture
def pair(cluster: Lab) -> Iterator[Replicated]:
    """Not installed yet; nothing of it is left afterwards."""
    pair = Replicated(cluster)
    yield pair
    cluster.heal()
    pair.uninstall()


def test_a_scheduled_secondary_waits_between_its_synchronisations_and_serves_when_its_copy_is_young(
    pair: Replicated,
) -> None:
    first, second = pair.nodes
    pair.install('syncat="0 0 29 2 *" syncdelta="1h" scripts="on"')
    first.run(f"echo one >{FOLDER}/a")
    pair.first_start()
    pair.waits_for(second, "rfs_syncat_wait")
    wait_state(first, NAME, "ALONE")
    assert second.out(f"cat {FOLDER}/a") == "one"
    assert (pair.value(second, "rfs.syncat"), pair.value(second, "rfs.reintegre_failed")) == ("down", "down")
    assert pair.called(first)[0] == "_rfs_primary" and "_rfs_resync_end" in pair.called(first)
    assert pair.called(second)[:3] == ["_rfs_secondary", "_rfs_resync_begin", "_rfs_resync_end"]

    first.run(f"echo two >{FOLDER}/a")
    assert second.out(f"cat {FOLDER}/a") == "one"
    seen = mark(second, NAME)
    safekit(second, f"set -m {NAME} -r rfs.syncat -v up")
    wait_for("the second synchronisation", lambda: pair.said(second, r"Reintegration ended", seen), timeout=40)
    pair.waits_for(second, "rfs_syncat_wait")
    assert second.out(f"cat {FOLDER}/a") == "two"
    assert pair.value(second, "rfs.synced") == "up"

    first.power_cut()
    wait_state(second, NAME, "ALONE", timeout=60)
    pair.await_said(second, "rule rfs_forceuptodate")
    assert second.out(f"cat {FOLDER}/a") == "two"


def test_what_is_not_replicated_stays_where_it_is(pair: Replicated) -> None:
    first, second = pair.nodes
    below = r'<tocheck path="here"/><notreplicated path="tmp"/><notreplicated regexpath=".*\.pid"/>'
    pair.install(inside=below, folders=("here", "tmp"))
    for node in pair.nodes:
        node.run(f"echo {node.name} >{FOLDER}/tmp/x; echo {node.name} >{FOLDER}/here/a.pid")
    pair.ready()
    first.run(f"echo data >{FOLDER}/here/data; echo new >{FOLDER}/tmp/y; echo new >{FOLDER}/here/b.pid")
    pair.stop(second)
    assert second.out(f"cd {FOLDER}; find . -type f | sort") == "./here/a.pid\n./here/data\n./tmp/x"
    assert second.out(f"cat {FOLDER}/tmp/x {FOLDER}/here/a.pid") == "n2\nn2"


def test_a_full_synchronisation_is_asked_for_once_and_then_forgotten(pair: Replicated) -> None:
    first, second = pair.nodes
    pair.install()
    first.run(f"for n in 1 2 3; do echo $n >{FOLDER}/$n; done")
    pair.ready()
    pair.stop(second)
    seen = mark(first, NAME)
    safekit(second, f"start -m {NAME}")
    wait_state(second, NAME, "SECOND")
    pair.await_said(first, "comparing what changed", seen)

    pair.stop(second)
    safekit(second, f"rfssync -m {NAME} full")
    assert pair.value(second, "usersetting.rfssyncmode") == "full"
    seen = mark(first, NAME)
    safekit(second, f"start -m {NAME}")
    wait_state(second, NAME, "SECOND")
    pair.await_said(first, "comparing everything", seen)
    wait_for("the policy is forgotten", lambda: pair.value(second, "usersetting.rfssyncmode") == "default")


def test_equal_copies_verify_under_load_and_what_was_written_beside_the_mount_is_found(pair: Replicated) -> None:
    first, second = pair.nodes
    pair.install()
    first.run(f"mkdir {FOLDER}/d; for n in $(seq 200); do echo $n >{FOLDER}/d/$n; done")
    pair.ready()
    first.run(f"(for n in $(seq 3000); do echo $n >>{FOLDER}/busy; done) >/dev/null 2>&1 &")
    for node in pair.nodes:
        done = safekit(node, f"rfsverify -m {NAME} --json", check=False)
        found = json.loads(done.out)
        assert (done.code, found["equal"], found["failed"]) == (0, True, ""), done
        assert found["files_done"] >= 201
    assert pair.value(first, "rfs.verify") == pair.value(second, "rfs.verify") == "up"

    beside = "/mnt/below"
    second.run(f"mkdir -p {beside} && mount --bind /data {beside} && echo bad >{beside}/r/d/7 && umount {beside}")
    done = safekit(first, f"rfsverify -m {NAME}", check=False)
    assert done.code == 17 and f"{FOLDER}/d/7" in done.out, done
    assert pair.value(first, "rfs.verify") == pair.value(second, "rfs.verify") == "down"
    pair.await_said(second, r"The copies differ: 1 files")


def test_what_a_synchronisation_took_is_said_with_true_figures(pair: Replicated) -> None:
    first, second = pair.nodes
    pair.install()
    first.run(f"head -c 20000000 /dev/urandom >{FOLDER}/big; echo small >{FOLDER}/small")
    pair.ready()
    pair.await_said(first, r"Reintegration ended \(default\) after .*: 2 files, 20.0 MB compared, 2\d.\d MB copied")
    pair.await_said(second, r"Reintegration ended \(default\) after .*: 2\d.\d MB copied")
    stats = json.loads(safekit(first, f"rfs stats -m {NAME} --json").out)["stats"]
    assert stats["resync_sent_bytes"] > 20_000_000
    assert pair.value(first, "rfs.rep_bandwidth").isdigit() and pair.value(second, "rfs.netin_bandwidth").isdigit()

    pair.stop(second)
    first.run(f"echo changed >{FOLDER}/small")
    seen = mark(first, NAME)
    safekit(second, f"start -m {NAME}")
    wait_state(second, NAME, "SECOND")
    pair.await_said(first, r"Reintegration ended \(default\) after .* 0\.0 MB copied", seen)
    assert "rep_bytes" in safekit(first, f"rfs stats -m {NAME}").out


@pytest.mark.parametrize("hot", [True, False], ids=["the primary serves", "the primary is stopped"])
def test_a_first_copy_that_travels_as_a_backup_needs_only_what_changed_since(
    pair: Replicated, tmp_path: Path, hot: bool
) -> None:
    first, second = pair.nodes
    pair.install()
    first.run(f"head -c 9000000 /dev/urandom >{FOLDER}/big; for n in $(seq 20); do echo $n >{FOLDER}/$n; done")
    if hot:
        safekit(first, f"prim -m {NAME}")
        wait_state(first, NAME, "ALONE")
    safekit(first, f"rfssync -m {NAME} external prim monday")
    first.run(f"tar --format=posix -C {FOLDER} -cf /tmp/backup.tar .")
    second.put(first.get("/tmp/backup.tar", tmp_path / "backup.tar"), "/tmp/backup.tar")
    if not hot:
        safekit(first, f"prim -m {NAME}")
        wait_state(first, NAME, "ALONE")
    first.run(f"echo changed >{FOLDER}/7; rm {FOLDER}/8; echo new >{FOLDER}/new")

    second.run(f"tar -C {FOLDER} -xpf /tmp/backup.tar && sync && sleep 0.1")
    safekit(second, f"rfssync -m {NAME} external second monday")
    safekit(second, f"second -m {NAME}")
    wait_state(second, NAME, "SECOND")
    wait_state(first, NAME, "PRIM")
    pair.await_said(first, "comparing what changed")
    pair.await_said(first, r"Reintegration ended \(external\) .* 0\.\d MB copied")
    assert safekit(first, f"rfsverify -m {NAME}", check=False).code == 0
    for node in pair.nodes:
        assert pair.value(node, "usersetting.rfssyncmode") == "default"


def test_a_backup_is_named_where_it_makes_sense(pair: Replicated) -> None:
    first, second = pair.nodes
    pair.install()
    pair.ready()
    for node, words in ((first, "external prim x"), (second, "external second x"), (second, "external prim x")):
        done = safekit(node, f"rfssync -m {NAME} {words}", check=False)
        assert done.code == 10 and "needs the module in STOP" in done.err, done
    pair.stop(second)
    done = safekit(second, f"rfssync -m {NAME} external second {'x' * 25}", check=False)
    assert done.code == 10 and "expected 1 to 24 letters" in done.err, done


def test_a_mounted_directory_that_hangs_restarts_the_module(pair: Replicated) -> None:
    first = pair.nodes[0]
    pair.install('checkintv="1s" checktime="2s"')
    pair.ready()
    first.run(f"systemctl kill --signal=STOP {UNIT}")
    try:
        wait_for("the null request fails", lambda: pair.said(first, "does not answer within 2 s"), timeout=30)
    finally:
        first.run(f"systemctl kill --signal=CONT {UNIT}")
    pair.await_said(first, "Action stopstart called by checktime")
    wait_for("it starts again", lambda: pair.said(first, "Action start called automatically"), timeout=60)
    # Who serves then depends on who noticed the silence first: the module's watch, or the other node's data plane.
    serve = {"PRIM Ready", "SECOND Ready"}
    wait_for("both are back", lambda: {shown(node, NAME) for node in pair.nodes} == serve, timeout=120)


def test_a_killed_worker_of_the_data_plane_is_one_line_in_the_log(pair: Replicated) -> None:
    first = pair.nodes[0]
    pair.install()
    safekit(first, f"prim -m {NAME}")
    wait_state(first, NAME, "ALONE")
    since, seen = state(first, NAME)["since"], mark(first, NAME)
    first.run(f"echo before >{FOLDER}/a")
    first.run(
        f"main=$(systemctl show --property=MainPID --value {UNIT});"
        f"group=$(systemctl show --property=ControlGroup --value {UNIT});"
        'kill -9 $(grep -vx "$main" "/sys/fs/cgroup$group/cgroup.procs")'
    )
    first.run(f"echo after >>{FOLDER}/a")
    wait_for("the line in the log", lambda: pair.said(first, "was taken over by a new process", seen))
    assert first.out(f"cat {FOLDER}/a") == "before\nafter"
    assert (state(first, NAME)["state"], state(first, NAME)["since"]) == ("ALONE", since)


def test_a_secondary_with_other_directories_degrades_the_primary_until_it_is_right(pair: Replicated) -> None:
    first, second = pair.nodes
    pair.install()
    pair.install(more=f'<replicated dir="{FOLDER}2"/>', on=(second,))
    pair.first_start()
    pair.waits_for(second, "degraded_server")
    assert (pair.value(first, "rfs.degraded"), pair.value(second, "rfs.uptodate")) == ("up", "down")
    assert state(first, NAME)["state"] == "ALONE"
    pair.stop(second)
    pair.install(on=(second,))
    safekit(first, f"set -m {NAME} -r rfs.degraded -v down")
    safekit(second, f"start -m {NAME}")
    wait_state(first, NAME, "PRIM")
    assert pair.value(first, "rfs.degraded") == "down"


def test_the_roles_are_as_a_person_orders_them_or_the_order_is_refused(pair: Replicated) -> None:
    first, second = pair.nodes
    pair.install()
    first.run(f"for n in 1 2 3; do echo $n >{FOLDER}/$n; done")

    safekit(second, f"second -m {NAME}")  # there is no primary
    wait_for(
        "it is stopped again", lambda: pair.said(second, "second refused: the other node is not primary"), timeout=40
    )
    wait_state(second, NAME, "STOP", substate="NotReady")
    pair.ready()
    for node, action in ((second, "prim"), (first, "second")):
        refused = safekit(node, f"{action} -m {NAME}", check=False)
        assert not refused.ok and f"`{action}` needs the module in STOP" in refused.err, refused
    pair.stop(second)
    safekit(second, f"prim -m {NAME}")  # there is one already
    wait_for("it is stopped again", lambda: pair.said(second, "prim refused: the other node is ALONE"), timeout=40)
    wait_state(second, NAME, "STOP", substate="NotReady")
    refused = safekit(second, f"secondforce -m {NAME} -d 2100-01-01", check=False)
    assert not refused.ok and "expected one that has passed" in refused.err, refused
    second.run(f"echo older >{FOLDER}/2 && touch -d 2001-01-01 {FOLDER}/2 && sync {FOLDER}/2")
    seen = mark(first, NAME)
    safekit(second, f"secondforce -m {NAME} -d 2026-01-01")
    wait_state(second, NAME, "SECOND")
    pair.await_said(first, "comparing everything", seen)

    wait_state(first, NAME, "PRIM")
    before = {node.name: mark(node, NAME) for node in pair.nodes}
    safekit(first, f"swap -m {NAME} nosync")
    wait_state(second, NAME, "PRIM")
    wait_state(first, NAME, "SECOND")
    for node in pair.nodes:
        assert not pair.said(node, "comparing everything|[1-9][0-9.]* MB copied", before[node.name])
    assert safekit(second, f"rfsverify -m {NAME}", check=False).code == 0
    assert second.out(f"cat {FOLDER}/1 {FOLDER}/2 {FOLDER}/3") == "1\n2\n3"

    safekit(second, "shutdown -t 60")
    wait_state(first, NAME, "ALONE")
    assert shown(second, NAME) == "STOP NotReady"
    pair.stop(first)
    seen = mark(first, NAME)
    safekit(first, f"prim -m {NAME} fullsync")
    wait_state(first, NAME, "ALONE")
    safekit(second, f"start -m {NAME}")
    wait_state(second, NAME, "SECOND")
    pair.await_said(first, "comparing everything", seen)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ('syncat="0 25 * * *"', "<rfs syncat=\"0 25 * * *\">: the hour is '25', not 0 to 23"),
        ('locktimeout="2h"', '<rfs locktimeout="2h">: a secondary that is gone would be waited for that long'),
        ('nbrei="none"', '<rfs nbrei="none">: not a valid value'),
    ],
)
def test_a_wrong_attribute_is_one_clear_sentence(pair: Replicated, attributes: str, said: str) -> None:
    node = pair.nodes[0]
    node.write("/tmp/r.safe", package(replicated_module(attributes)))
    safekit(node, f"module install -m {NAME} /tmp/r.safe -M 5 -r")
    done = safekit(node, f"confcheck -m {NAME}", check=False)
    assert done.code == 14
    assert "userconfig.xml, line 1: " + said in done.err


def test_an_unknown_policy_is_refused_by_the_command(pair: Replicated) -> None:
    pair.install()
    done = safekit(pair.nodes[0], f"rfssync -m {NAME} half", check=False)
    assert done.code == 11 and "expected full, default, external prim UID" in done.err
    done = safekit(pair.nodes[0], f"rfsverify -m {NAME} --json", check=False)
    assert done.code == 10 and "start the module first" in done.err
    assert json.loads(safekit(pair.nodes[0], f"state -m {NAME} --json").out)["modules"][0]["state"]["progress"] is None
