"""The cluster of the cases with its second lan, the modules that they share, and the hooks that make the report."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

import pytest

from tests.acceptance.cases import IDS
from tests.acceptance.checked import Checked
from tests.acceptance.pair import Pair
from tests.acceptance.second_lan import SecondLan
from tests.acceptance.shared import Shared
from tests.acceptance.verdicts import Verdicts
from tests.conftest import REPORTS
from tests.nodes import Lab
from tests.system.conftest import nothing_leaks
from tests.system.membership import form_cluster
from tests.system.replicated import Replicated

__all__ = ["nothing_leaks"]

VERDICTS = Verdicts()


@pytest.fixture(scope="session")
def cluster(runtime: Lab) -> Iterator[Lab]:
    """n1, n2 and n3 in one cluster; n1 and n2 have a second lan, `private`."""
    lan = SecondLan(runtime)
    lan.lay()
    form_cluster(runtime, lan.config())
    yield runtime
    for node in runtime.everyone:
        node.plug_cable()
    lan.remove()


@pytest.fixture(scope="session")
def _pair(cluster: Lab) -> Iterator[Pair]:
    pair = Pair(cluster)
    yield pair
    pair.uninstall()


@pytest.fixture
def pair(_pair: Pair) -> Iterator[Pair]:
    """Module `m`, PRIM on one node and SECOND on the other, as the mirror cases have it; nobody is cut off afterwards."""
    _pair.become()
    yield _pair
    _pair.mend()


@pytest.fixture
def bare_pair(_pair: Pair) -> Iterator[Pair]:
    """Module `m`, for a case that installs it in a way of its own."""
    yield _pair
    _pair.mend()


@pytest.fixture
def checked(_pair: Pair) -> Iterator[Checked]:
    """Module `m` with every checker, PRIM and SECOND, and all that is tested is well."""
    checked = Checked(_pair)
    checked.make_well()
    yield checked
    checked.make_well_again()


@pytest.fixture
def replicated(cluster: Lab) -> Iterator[Replicated]:
    """Module `r`, not installed yet; nothing of it is left afterwards."""
    module = Replicated(cluster)
    yield module
    cluster.heal()
    module.uninstall()


@pytest.fixture(scope="session")
def _shared(cluster: Lab) -> Iterator[Shared]:
    farm = Shared(cluster)
    yield farm
    farm.uninstall()


@pytest.fixture
def shared(_shared: Shared) -> Iterator[Shared]:
    """Module `w`, UP on n1, n2 and n3, a port shared by the port of the client."""
    _shared.become()
    yield _shared
    _shared.lab.heal()


@pytest.fixture
def bare_shared(_shared: Shared) -> Iterator[Shared]:
    """Module `w`, for a case that installs it in a way of its own."""
    yield _shared
    _shared.lab.heal()


# --- order ---

GROUPS = "MCIF"
"""The mirror first, which needs that no farm runs when a key is changed; then what stands on it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cases that share a module stand together, those that install it in a way of their own at the end of their group."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[int, int, int]:
    mark = item.get_closest_marker("case")
    if mark is None:
        return len(GROUPS), 0, 0
    number: str = mark.args[0]
    names = getattr(item, "fixturenames", ())
    shared = 1 if "checked" in names else 2 if any(name.startswith("bare_") for name in names) else 0
    return GROUPS.index(number[0]), shared, IDS.index(number)


# --- the report ---


def pytest_configure(config: pytest.Config) -> None:
    """The mark of a case."""
    config.addinivalue_line("markers", "case(id, ours): an acceptance case of the specification")
    config.pluginmanager.register(_Lines(config))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Each phase of a case counts."""
    report = yield
    mark = item.get_closest_marker("case")
    if mark is not None:
        failure = call.excinfo.value if call.excinfo is not None and report.failed else None
        VERDICTS.add(mark.args[0], call.when, report.duration, failure, mark.kwargs["ours"])
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """A line for each case as it ends takes the place of a dot."""
    if "/acceptance/" in report.nodeid and report.when == "call":
        return ("passed" if report.passed else "failed"), "", ""
    return None


class _Lines:
    """Writes them."""

    def __init__(self, config: pytest.Config) -> None:
        self._plugins = config.pluginmanager

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        reporter = self._plugins.get_plugin("terminalreporter")
        if reporter is not None and VERDICTS.all and "/acceptance/" in nodeid:
            reporter.write_line(f"{time.strftime('%T')} {VERDICTS.last.line()}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table."""
    if VERDICTS.all:
        terminalreporter.section("acceptance")
        for line in VERDICTS.table():
            terminalreporter.write_line(line)


def pytest_sessionfinish() -> None:
    """The report."""
    if VERDICTS.all:
        VERDICTS.write(REPORTS / "acceptance.json")
