"""How a configuration becomes the command line of the data plane."""

from __future__ import annotations

from pathlib import Path

import pytest

from safekit.paths import Paths
from safekit.replication.options import settings_of
from tests.unit.config.samples import load, mirror, rfs

PATHS = Paths()


def arguments(attributes: str = "", directories: tuple[str, ...] = ("/srv/a b",)) -> list[str]:
    replication = load(mirror(rfs(*directories, attributes=attributes))).service.rfs
    assert replication is not None
    return settings_of("db", replication, PATHS, "b00t", "192.0.2.1").arguments()


def value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_the_process_lives_where_the_paths_say() -> None:
    words = arguments()
    assert value(words, "--module") == "db"
    assert value(words, "--control") == str(PATHS.module_run("db") / "rfs.sock")
    assert value(words, "--state-dir") == str(PATHS.module_var("db") / "rfs")
    assert value(words, "--key-file") == "/var/safekit/cluster/cluster.key"
    assert value(words, "--directory") == "/srv/a b"


def test_every_directory_is_there_in_the_order_of_the_file() -> None:
    words = arguments(directories=("/b", "/a"))
    assert [words[at + 1] for at, word in enumerate(words) if word == "--directory"] == ["/b", "/a"]


def test_time_outs_and_durability_are_those_of_the_configuration() -> None:
    words = arguments('async="none" locktimeout="3s" sendtimeout="2s"')
    assert value(words, "--async") == "none"
    assert (value(words, "--ack-timeout"), value(words, "--silence-timeout")) == ("3000", "2000")
    assert (value(arguments(), "--ack-timeout"), value(arguments(), "--silence-timeout")) == ("10000", "2000")


def test_the_stream_is_encrypted_and_leaves_from_the_address_in_the_network_of_the_replication() -> None:
    words = arguments()
    assert (value(words, "--encryption"), value(words, "--source")) == ("on", "192.0.2.1")


@pytest.mark.parametrize(("address", "source"), [("2001:db8::0:1", ["2001:db8::1"]), ("n1-flow.example", [])])
def test_a_name_of_this_node_is_no_source_address(address: str, source: list[str]) -> None:
    replication = load(mirror(rfs("/a"))).service.rfs
    assert replication is not None
    words = settings_of("db", replication, PATHS, "b00t", address).arguments()
    assert [words[at + 1] for at, word in enumerate(words) if word == "--source"] == source


def test_a_relative_control_socket_is_never_made() -> None:
    assert Path(value(arguments(), "--control")).is_absolute()


def test_what_is_not_replicated_follows_its_directory() -> None:
    below = (
        '<replicated dir="/a"><notreplicated path="tmp"/><notreplicated regexpath="!.*\\.db"/></replicated>'
        '<replicated dir="/b"><notreplicated path="x/y"/></replicated>'
    )
    replication = load(mirror(f"<rfs>{below}</rfs>")).service.rfs
    assert replication is not None
    words = settings_of("db", replication, PATHS, "b00t", "192.0.2.1").arguments()
    assert words[words.index("--directory") :] == [
        *("--directory", "/a", "--exclude-path", "tmp", "--exclude-name", r"!.*\.db"),
        *("--directory", "/b", "--exclude-path", "x/y"),
    ]


def test_the_resynchronisation_is_as_the_configuration_says() -> None:
    words = arguments(
        'nbrei="3" reiallowedbw="5000" reitimeout="60s" ruzone_blocksize="1048576" reipacketsize="1048576" '
        'namespacepolicy="0"'
    )
    assert value(words, "--resync-threads") == "3"
    assert value(words, "--resync-bandwidth") == "5000"
    assert value(words, "--resync-timeout") == "60"
    assert value(words, "--zone-size") == "1048576"
    assert value(words, "--namespace-policy") == "0"
    assert value(words, "--boot-id") == "b00t"


def test_without_a_word_nothing_limits_the_resynchronisation() -> None:
    words = arguments()
    assert value(words, "--resync-bandwidth") == "0"
    assert value(words, "--zone-size") == "8388608"
    assert value(words, "--namespace-policy") == value(arguments('namespacepolicy="1"'), "--namespace-policy") == "4"
