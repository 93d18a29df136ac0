"""What every test may ask for. The nodes are booted when the first test asks for them, once for a run."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.nodes import Lab, Node
from tests.nodes.engine import ROOT
from tests.nodes.runtime import install_runtime

settings.register_profile("on a busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("on a busy machine")
"""How long an example takes says nothing about the product on a machine that does other things as well."""

REPORTS = ROOT / "build" / "reports"


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """n1, n2, n3 and client, booted; every cut between them is healed."""
    here = Lab.here()
    here.ensure()
    yield here
    here.heal()


@pytest.fixture(scope="session")
def runtime(lab: Lab) -> Lab:
    """The lab with the product of this source tree installed and `safekitd` running on n1, n2 and n3."""
    install_runtime(lab.nodes)
    return lab


@pytest.fixture
def n1(lab: Lab) -> Node:
    """The first node."""
    return lab["n1"]


@pytest.fixture
def n2(lab: Lab) -> Node:
    """The second node."""
    return lab["n2"]


@pytest.fixture
def n3(lab: Lab) -> Node:
    """The third node."""
    return lab["n3"]


@pytest.fixture
def client(lab: Lab) -> Node:
    """The machine outside of the cluster."""
    return lab.client


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """When a test that drives nodes fails, what they have to say is saved before anything else happens to them."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and report.when != "teardown" and isinstance(lab, Lab):
        folder = REPORTS / "failures" / re.sub(r"[^\w.-]+", "_", item.nodeid)
        try:
            lab.collect(folder)
            report.sections.append(("nodes", f"journals and logs: {folder.relative_to(ROOT)}"))
        except Exception as trouble:  # a report must not hide the failure that it is about
            report.sections.append(("nodes", f"journals and logs could not be saved: {trouble}"))
    return report
