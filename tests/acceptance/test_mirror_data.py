"""M12, M20 to M23: what a secondary copies when it comes back, and data that nobody may take for good."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.acceptance.cases import asks_for, case
from tests.nodes import Node, wait_for
from tests.system.product import mark, messages, safekit, state, wait_state
from tests.system.replicated import FOLDER, NAME, Replicated

ZONE_MB = 8.4


def copied_mb(module: Replicated, node: Node, after: int) -> float:
    """The megabytes that the last reintegration copied, as the log says."""
    ends = [m for m in messages(node, NAME, after) if m.startswith("Reintegration ended")]
    found = re.search(r"([\d.]+) MB copied", ends[-1])
    assert found, ends
    return float(found[1])


def assert_equal(module: Replicated) -> None:
    """Both copies are the same, bit for bit, as `safekit rfsverify` compares them."""
    done = safekit(module.nodes[0], f"rfsverify -m {NAME} --json", check=False, timeout=120)
    found = json.loads(done.out)
    assert (done.code, found["equal"], found["failed"]) == (0, True, ""), done


@case("M12", ours="the node with the complete copy is overwritten only by `second fullsync`, not by a start")
def test_m12_a_half_copied_node_is_no_primary(replicated: Replicated) -> None:
    first, second = replicated.nodes
    replicated.install('reiallowedbw="4000"')
    first.run(f"head -c 60000000 /dev/urandom >{FOLDER}/big")
    replicated.first_start()
    wait_for("the copy began", lambda: second.succeeds(f"find {FOLDER}/big -size +1000k | grep -q ."), timeout=60)
    assert state(second, NAME)["substate"] == "Transient"
    replicated.stop(second)
    replicated.stop(first)
    refused = safekit(second, f"prim -m {NAME}", check=False)
    assert not refused.ok and "inconsistent" in refused.err, refused
    with asks_for("primforce"):
        safekit(second, f"primforce -m {NAME}")
    wait_state(second, NAME, "ALONE")
    seen = mark(second, NAME)
    safekit(first, f"start -m {NAME}")
    wait_state(first, NAME, "WAIT", substate="NotReady")
    wait_for("it says why", lambda: "nothing in common" in state(first, NAME)["reason"], timeout=30)
    replicated.stop(first)
    safekit(first, f"second -m {NAME} fullsync")
    wait_state(first, NAME, "SECOND", timeout=90)
    assert replicated.said(second, "comparing everything", seen)


@case("M20")
def test_m20_of_a_large_file_only_the_changed_zone_is_copied(replicated: Replicated) -> None:
    first, second = replicated.nodes
    replicated.install()
    first.run(f"head -c 100000000 /dev/urandom >{FOLDER}/big")
    replicated.ready()
    replicated.stop(second)
    first.run(f"head -c 4096 /dev/urandom | dd of={FOLDER}/big bs=4096 seek=10000 conv=notrunc status=none")
    seen = mark(first, NAME)
    safekit(second, f"start -m {NAME}")
    wait_state(second, NAME, "SECOND", timeout=90)
    wait_state(first, NAME, "PRIM")
    assert replicated.said(first, "comparing what changed", seen)
    assert copied_mb(replicated, first, seen) <= ZONE_MB
    assert_equal(replicated)


@case("M21", ours="what the records of changes name is compared, not what is young by its file's time")
def test_m21_after_a_crash_of_the_secondary_what_changed_is_copied(replicated: Replicated) -> None:
    first, second = replicated.nodes
    replicated.install()
    first.run(f"head -c 50000000 /dev/urandom >{FOLDER}/old; touch -d '2 days ago' {FOLDER}/old; mkdir {FOLDER}/d")
    replicated.ready()
    second.power_cut()
    wait_state(first, NAME, "ALONE", timeout=60)
    first.run(f"head -c 3000000 /dev/urandom >{FOLDER}/d/new; touch -d '2 days ago' {FOLDER}/d/new")
    second.power_on()
    seen = mark(first, NAME)
    safekit(second, f"start -m {NAME}")
    wait_state(second, NAME, "SECOND", timeout=90)
    wait_state(first, NAME, "PRIM")
    assert 3 <= copied_mb(replicated, first, seen) < 40
    assert_equal(replicated)


@case("M22", ours="generations say that two copies are unrelated; no clock is asked")
def test_m22_unrelated_data_are_never_overwritten_without_a_word(replicated: Replicated) -> None:
    first, second = replicated.nodes
    replicated.install()
    for node in replicated.nodes:
        node.run(f"echo {node.name} >{FOLDER}/whose")
        safekit(node, f"prim -m {NAME}")
        wait_state(node, NAME, "ALONE")
        replicated.stop(node)
    safekit(first, f"start -m {NAME}")
    wait_state(first, NAME, "ALONE")
    safekit(second, f"start -m {NAME}")
    wait_state(second, NAME, "WAIT", substate="NotReady")
    wait_for("it says why", lambda: "nothing in common" in state(second, NAME)["reason"], timeout=20)
    assert "safekit second fullsync" in state(second, NAME)["reason"]
    replicated.stop(second)
    assert second.out(f"cat {FOLDER}/whose") == second.name
    seen = mark(first, NAME)
    safekit(second, f"second -m {NAME} fullsync")
    wait_state(second, NAME, "SECOND", timeout=60)
    wait_state(first, NAME, "PRIM")
    assert replicated.said(first, "comparing everything", seen)
    assert second.out(f"cat {FOLDER}/whose") == first.name


@case("M23")
def test_m23_of_a_copy_that_came_as_a_backup_only_what_changed_since_is_copied(
    replicated: Replicated, tmp_path: Path
) -> None:
    first, second = replicated.nodes
    replicated.install()
    first.run(f"head -c 30000000 /dev/urandom >{FOLDER}/big; for n in $(seq 20); do echo $n >{FOLDER}/$n; done")
    safekit(first, f"rfssync -m {NAME} external prim monday")
    first.run(f"tar --format=posix -C {FOLDER} -cf /tmp/backup.tar .")
    second.put(first.get("/tmp/backup.tar", tmp_path / "backup.tar"), "/tmp/backup.tar")
    safekit(first, f"prim -m {NAME}")
    wait_state(first, NAME, "ALONE")
    first.run(f"echo changed >{FOLDER}/7; rm {FOLDER}/8; echo new >{FOLDER}/new; rm /tmp/backup.tar")
    second.run(f"tar -C {FOLDER} -xpf /tmp/backup.tar && sync && rm /tmp/backup.tar")
    second.wait_for(
        "the clock moved past the restored files",
        f'touch /tmp/later; [ -z "$(find {FOLDER} -newercc /tmp/later -print -quit)" ]',
    )
    seen = mark(first, NAME)
    safekit(second, f"rfssync -m {NAME} external second monday")
    safekit(second, f"second -m {NAME}")
    wait_state(second, NAME, "SECOND", timeout=60)
    wait_state(first, NAME, "PRIM")
    assert replicated.said(first, r"Reintegration ended \(external\)", seen)
    assert copied_mb(replicated, first, seen) < 1
    assert_equal(replicated)
