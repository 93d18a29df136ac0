# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What a role or a catalogue entry says of its variables is what it has; every application of the catalogue renders a
# configuration of the grammar from its defaults, and its scripts are sound.

from __future__ import annotations

import pathlib
import subprocess

import pytest
import yaml
from jinja2 import Environment, StrictUndefined

from ansible_collections.evidian.safekit.plugins.filter.userconfig import FilterModule

ROLES = pathlib.Path(__file__).parents[3] / "roles"
CATALOGUE = ROLES / "module" / "catalogue"
ROLE_NAMES = sorted(path.name for path in ROLES.iterdir() if path.is_dir())
ENTRIES = sorted(path.name for path in CATALOGUE.iterdir() if (path / "meta").is_dir())
SCRIPTS = sorted(path for path in CATALOGUE.glob("*/bin/*"))

REQUIRED = {
    "farm": {"services": ["nginx", "php"]},
    "mirror": {"services": ["redis", "app"]},
    "nginx_farm": {"virtual_address": "192.0.2.1"},
    "postgresql": {"virtual_address": "192.0.2.1"},
}


def read(path):
    with open(path, encoding="utf-8") as stream:
        return yaml.safe_load(stream)


def options_of(folder):
    return read(folder / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_the_defaults_of_a_role_are_what_its_specification_says(role):
    declared = {name: option["default"] for name, option in options_of(ROLES / role).items() if "default" in option}
    assert declared == read(ROLES / role / "defaults" / "main.yml")


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_an_option_is_required_or_has_a_default(role):
    for name, option in options_of(ROLES / role).items():
        assert ("default" in option) != option.get("required", False), name


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_every_variable_of_a_role_is_in_its_page(role):
    page = (ROLES / role / "README.md").read_text(encoding="utf-8")
    for name in options_of(ROLES / role):
        assert f"`{name}`" in page, name


def render(entry, settings):
    defaults = {
        name: option["default"] for name, option in options_of(CATALOGUE / entry).items() if "default" in option
    }
    environment = Environment(undefined=StrictUndefined, trim_blocks=True)
    environment.filters["to_json"] = __import__("json").dumps
    template = environment.from_string(
        (CATALOGUE / entry / "templates" / "userconfig.yml.j2").read_text(encoding="utf-8")
    )
    return yaml.safe_load(template.render(safekit_settings={**defaults, **REQUIRED[entry], **settings}))


MORE = {
    "farm": {"virtual_addresses": ["192.0.2.1", "2001:db8::1"], "power": {"n1": 1, "n2": 2}, "boot": "auto"},
    "mirror": {"virtual_addresses": ["192.0.2.1"], "replicated": ["/srv/a", "/srv/b"], "replicated_mode": ""},
    "nginx_farm": {"power": {"n1": 3, "n2": 0}, "filter": "on_port"},
    "postgresql": {"lans": ["default", "replication"], "async": "none", "version": "16"},
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("more", [False, True])
def test_an_entry_renders_a_configuration_of_the_grammar(entry, more):
    filters = FilterModule().filters()
    data = render(entry, MORE[entry] if more else {})
    assert filters["from_userconfig"](filters["to_userconfig"](data)) == data


def test_every_entry_is_tried():
    assert set(ENTRIES) == set(REQUIRED) == set(MORE)


def test_the_generic_templates_carry_the_macro_services():
    for entry in ("farm", "mirror"):
        data = render(entry, {})
        assert data["macro"]["SERVICES"] == ", ".join(REQUIRED[entry]["services"])
        assert data["service"]["user"]["var"]["SERVICES"] == "%SERVICES%"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_a_script_is_posix_shell_and_may_be_run(script):
    assert script.read_text(encoding="utf-8").startswith("#!/bin/sh\n")
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["sh", "-n", str(script)], check=False, capture_output=True, timeout=10).returncode == 0


FAKE_SYSTEMCTL = """#!/bin/sh
# Services are files below $STATE: the content is what systemctl would say of them.
verb=$1; shift
for service; do :; done
echo "$verb $service" >> "$STATE/calls"
case $verb in
start) [ "$service" = broken ] || echo active > "$STATE/$service" ;;
stop) echo inactive > "$STATE/$service" ;;
disable) : > "$STATE/$service.disabled" ;;
is-enabled) [ ! -e "$STATE/$service.disabled" ] ;;
is-active) [ "$(cat "$STATE/$service")" = active ] ;;
show)
    case "$*" in
    *LoadState*) [ -e "$STATE/$service" ] && echo loaded || echo not-found ;;
    *ActiveState*) cat "$STATE/$service" ;;
    esac ;;
esac
"""


class Application:
    """The generic scripts with a systemctl and a safekit command that only keep notes."""

    def __init__(self, folder, entry, services):
        self.bin = folder / "bin"
        self.state = folder / "state"
        self.path = folder / "path"
        for directory in (self.bin, self.state, self.path):
            directory.mkdir()
        for source in (*CATALOGUE.glob("common/bin/*"), *CATALOGUE.glob(entry + "/bin/*")):
            (self.bin / source.name).write_text(source.read_text())
            (self.bin / source.name).chmod(0o755)
        self.put(self.path / "systemctl", FAKE_SYSTEMCTL)
        self.put(self.path / "safekit", '#!/bin/sh\necho "$*" >> "$STATE/safekit"\n')
        self.services = services
        for service in services:
            (self.state / service).write_text("inactive\n")

    @staticmethod
    def put(path, text):
        path.write_text(text)
        path.chmod(0o755)

    def run(self, script, *arguments):
        environment = {
            "PATH": f"{self.path}:/usr/bin:/bin",
            "SAFE": str(self.path),
            "SAFEUSERBIN": str(self.bin),
            "STATE": str(self.state),
            "SERVICES": ", ".join(self.services),
            "SERVICES_TIMEOUT": "1",
        }
        command = [str(self.bin / script), *arguments]
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=30)
        return done.returncode

    def calls(self, *verbs):
        path = self.state / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return [line for line in lines if line.split()[0] in verbs]

    def told(self):
        path = self.state / "safekit"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(params=[("mirror", "prim"), ("farm", "both")], ids=["mirror", "farm"])
def application(request, tmp_path):
    entry, suffix = request.param
    made = Application(tmp_path, entry, ["db", "app", "web"])
    made.start, made.stop = f"start_{suffix}", f"stop_{suffix}"
    return made


def test_services_start_in_order_and_stop_in_reverse_order(application):
    assert application.run(application.start, "WAIT", "ALONE", "start") == 0
    assert application.calls("start") == ["start db", "start app", "start web"]
    assert application.run(application.stop, "ALONE", "WAIT", "stop") == 0
    assert application.calls("stop") == ["stop web", "stop app", "stop db"]


def test_stopping_twice_and_with_force_does_nothing_more(application):
    assert application.run(application.stop, "ALONE", "WAIT", "stop") == 0
    assert application.run(application.stop, "force", "ALONE", "WAIT", "stop") == 0
    assert application.calls("stop") == []


def test_only_the_named_services_are_restarted(application):
    assert application.run(application.start, "PRIM", "PRIM", "restart", "-Services", "web, app") == 0
    assert application.calls("start") == ["start web", "start app"]


def test_a_service_that_does_not_run_stops_the_module(application):
    application.services.insert(1, "broken")
    (application.state / "broken").write_text("failed\n")
    assert application.run(application.start, "WAIT", "ALONE", "start") == 1
    assert application.calls("start") == ["start db", "start broken"]
    assert application.told() == [
        f"printe {application.start}: broken does not run",
        f"printe {application.start}: not every service runs",
        f"stop -i {application.start}",
    ]


def test_before_the_start_every_service_is_stopped(application):
    (application.state / "app").write_text("active\n")
    assert application.run("prestart", "STOP", "WAIT", "start") == 0
    assert application.calls("stop") == ["stop app"]


def test_configuration_disables_the_start_at_boot_once(application):
    for expected in (["disable db", "disable app", "disable web"], []):
        assert application.run("config") == 0
        assert application.calls("disable") == expected


def test_configuration_refuses_a_service_that_does_not_exist(application):
    application.services.append("nothing")
    assert application.run("config") == 1
    assert application.told() == ["printe config: the service nothing does not exist on this node"]
