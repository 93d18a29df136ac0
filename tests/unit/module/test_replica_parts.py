"""The small parts beside the data plane: the age of a copy, the null request, what is told of a resynchronisation."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from safekit.automaton.data import DataRecord, Holder
from safekit.automaton.mirror import MirrorState, PeerView
from safekit.automaton.vocabulary import Role
from safekit.files import boot_identity
from safekit.module.freshness import Freshness
from safekit.module.null_request import answers
from safekit.module.replica_watch import may_need_trust
from safekit.module.resync import ResyncCounts, ResyncReport
from safekit.module.settings import Settings, read_settings, write_settings
from safekit.replication import ResyncProgress

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_a_copy_is_young_until_syncdelta_has_passed(tmp_path: Path) -> None:
    now = [NOW]
    freshness = Freshness(tmp_path / "synced.json", lambda: now[0])
    assert not freshness.younger_than(timedelta(hours=1))
    freshness.note()
    now[0] = NOW + timedelta(minutes=59)
    assert freshness.younger_than(timedelta(hours=1))
    now[0] = NOW + timedelta(minutes=60)
    assert not freshness.younger_than(timedelta(hours=1))


def test_a_syncdelta_of_one_minute_has_no_effect_and_a_clock_that_goes_back_makes_no_copy_young(tmp_path: Path) -> None:
    now = [NOW]
    freshness = Freshness(tmp_path / "synced.json", lambda: now[0])
    freshness.note()
    assert not freshness.younger_than(timedelta(minutes=1))
    now[0] = NOW - timedelta(seconds=1)
    assert not freshness.younger_than(timedelta(hours=1))


@pytest.mark.parametrize(
    ("holder", "peer_alive", "cluster_hears", "needed"),
    [
        (Holder.BOTH, False, False, True),  # both lost their power, this one is back first
        (Holder.PEER, False, False, True),
        (Holder.ME, False, False, False),
        (Holder.BOTH, True, False, False),
        (Holder.BOTH, None, False, False),
        (Holder.BOTH, False, True, False),
    ],
)
def test_syncdelta_is_asked_where_the_record_alone_lets_nobody_serve(
    holder: Holder, peer_alive: bool | None, cluster_hears: bool, needed: bool
) -> None:
    record = DataRecord(epoch=3, generation="3.n1.x", holder=holder, role=Role.PRIM, clean=False)
    state = MirrorState(node="n1", peer_node="n2", nonce="x", replicated=True, record=record)
    assert may_need_trust(replace(state, peer=PeerView(alive=peer_alive)), cluster_hears) is needed


def test_a_damaged_date_is_no_date(tmp_path: Path) -> None:
    for text in ("", "[]", '{"synced": 5}', '{"synced": "x"}', "{}"):
        (tmp_path / "synced.json").write_text(text)
        assert not Freshness(tmp_path / "synced.json").younger_than(timedelta(days=1))


async def test_a_directory_that_answers_and_one_that_hangs(tmp_path: Path) -> None:
    assert await answers(tmp_path, 5.0)
    release = threading.Event()
    try:
        assert not await answers(tmp_path, 0.05, lambda _: release.wait())
    finally:
        release.set()


async def test_an_error_is_an_answer(tmp_path: Path) -> None:
    assert await answers(tmp_path / "gone", 5.0)


PROGRESS = ResyncProgress("scan", 5, 10, 0, 0, 0, -1)


class Told:
    """A log, resources and a clock."""

    def __init__(self, *, detail: bool = False) -> None:
        self.lines: list[str] = []
        self.values: dict[str, str] = {}
        self.now = 100.0
        self.report = ResyncReport(self, self, detail=detail, now=lambda: self.now)

    def write(self, origin: str, level: str, message: str) -> None:
        assert origin == "rfs"
        self.lines.append(f"{level} {message}")

    def set(self, name: str, value: str, *, lasting: bool = True) -> bool:
        del lasting
        self.values[name] = value
        return True


def test_a_resynchronisation_is_told_from_its_beginning_to_its_end() -> None:
    told = Told()
    told.report.begin("full")
    told.report.show(PROGRESS)
    assert told.report.progress == PROGRESS
    told.now += 12
    told.report.show(ResyncProgress("copy", 1, 4, 50_000_000, 200_000_000, 10_000_000, 15))
    assert told.lines == ["E Reintegration: 25 %, 50.0 of 200.0 MB, 1 of 4 files, 10.0 MB/s, 15 s left"]
    told.now += 8
    told.report.show(ResyncProgress("copy", 4, 4, 200_000_000, 200_000_000, 10_000_000, 0))
    told.report.end(ResyncCounts(5, 210_000_000, 30_000_000))
    assert told.lines[1:] == [
        "E Reintegration ended (full) after 20.0 s: 5 files, 210.0 MB compared, 30.0 MB copied, 10.5 MB/s"
    ]
    assert told.values["rfs.rei_scan_count_metric"] == "5/10"
    assert told.values["rfs.rei_copy_count_metric"] == "4/4"
    assert told.values["rfs.rei_copy_size_metric"] == "200000000/200000000"
    assert (told.values["rfs.rei_copy_time_metric"], told.values["rfs.reintegre_failed"]) == ("8", "down")
    assert told.report.progress is None
    assert not told.report.running


def test_the_secondary_says_what_it_knows() -> None:
    told = Told()
    told.report.begin("default")
    told.now += 2
    told.report.end(ResyncCounts(travelled=1_000_000))
    assert told.lines == ["E Reintegration ended (default) after 2.0 s: 1.0 MB copied, 0.5 MB/s"]


def test_every_step_is_told_with_reidetail() -> None:
    told = Told(detail=True)
    told.report.show(PROGRESS)
    told.report.show(replace(PROGRESS, files_done=6))
    assert [line.split(":")[0] for line in told.lines] == ["I Reintegration, scan"] * 2


def test_an_interruption_is_told_once() -> None:
    told = Told()
    told.report.begin("default")
    told.report.broken("reset by peer")
    told.report.broken("again")
    assert told.lines == ["C Reintegration interrupted: reset by peer"]
    assert told.values == {"rfs.reintegre_failed": "up"}


def test_settings_outlive_the_daemon_and_a_policy_that_nobody_knows_is_the_default(tmp_path: Path) -> None:
    settings = Settings(boot=True, syncmode="external", syncrole="prim", syncuid="u")
    write_settings(tmp_path / "s.json", settings)
    assert read_settings(tmp_path / "s.json") == settings
    (tmp_path / "s.json").write_text('{"boot": true, "syncmode": "magic"}')
    assert read_settings(tmp_path / "s.json") == Settings(boot=True)


def test_a_boot_has_one_identity_and_the_next_another(tmp_path: Path) -> None:
    path = tmp_path / "run" / "boot-id"
    first = boot_identity(path)
    assert first == boot_identity(path) and len(first) == 32
    path.unlink()
    assert boot_identity(path) != first
