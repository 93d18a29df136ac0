"""The schema is the single source: the tables read from it, libxml2 and the models agree with it and with the spec."""

from __future__ import annotations

import dataclasses
import random
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree

from safekit.config import ConfigError, cluster, document, model, values
from safekit.config.errors import Problems
from safekit.config.grammar import (
    SCHEMAS,
    Attribute,
    Element,
    Grammar,
    cluster_grammar,
    elements,
    userconfig_grammar,
)
from tests.unit.config.samples import CLUSTER, mirror
from tests.unit.config.test_userconfig import FARM, MIRROR

GRAMMARS = {"cluster.xml": cluster_grammar(), "userconfig.xml": userconfig_grammar()}
EVERY = [(path, element) for grammar in GRAMMARS.values() for path, element in elements(grammar.root)]
ATTRIBUTES = [
    (f"{path}/@{attribute.name}", attribute) for path, element in EVERY for attribute in element.attributes.values()
]

# Which model class holds the attributes of which element. What is left out: `name` of a flow, of the servers and of `to`, whose
# values are fields of the class above; the elements that only group others.
CLASSES = {
    "cluster/witness": cluster.Witness,
    "cluster/lans": cluster.Cluster,
    "cluster/lans/lan": cluster.Lan,
    "cluster/lans/lan/node": cluster.Node,
    "safe/macro": model.Macro,
    "safe/service": model.Service,
    "safe/service/heart": model.Heart,
    "safe/service/heart/heartbeat": model.Heartbeat,
    "safe/service/farm": model.Farm,
    "safe/service/farm/lan": model.FarmLan,
    "safe/service/farm/lan/node": model.FarmNode,
    "safe/service/vip": model.Vip,
    "safe/service/vip/interface_list/interface": model.VipInterface,
    "safe/service/vip/interface_list/interface/real_interface/virtual_addr": model.VirtualAddr,
    "safe/service/vip/interface_list/interface/virtual_interface/virtual_addr": model.VirtualAddr,
    "safe/service/vip/loadbalancing_list/group": model.Group,
    "safe/service/vip/loadbalancing_list/group/cluster/host": model.Host,
    "safe/service/vip/loadbalancing_list/group/rule": model.Rule,
    "safe/service/rfs": model.Rfs,
    "safe/service/rfs/replicated": model.Replicated,
    "safe/service/rfs/replicated/notreplicated": model.NotReplicated,
    "safe/service/user": model.User,
    "safe/service/vhost/virtualhostname": model.VirtualHostname,
    "safe/service/errd": model.Errd,
    "safe/service/errd/proc": model.Proc,
    "safe/service/check/tcp": model.TcpCheck,
    "safe/service/check/tcp/to": model.TcpCheck,
    "safe/service/check/ping": model.PingCheck,
    "safe/service/check/ping/to": model.PingCheck,
    "safe/service/check/intf": model.IntfCheck,
    "safe/service/check/intf/to": model.IntfCheck,
    "safe/service/check/ip": model.IpCheck,
    "safe/service/check/ip/to": model.IpCheck,
    "safe/service/check/custom": model.CustomCheck,
    "safe/service/check/module": model.ModuleCheck,
    "safe/service/check/module/to": model.ModuleCheck,
    "safe/service/check/splitbrain": model.SplitbrainCheck,
    "safe/service/failover": model.FailoverRules,
}
ELSEWHERE = {
    "safe/service/heart/heartbeat/server",  # Heartbeat.servers
    "safe/service/vip/interface_list/interface/virtual_interface",  # VipInterface.type and .mac
    "safe/service/rfs/flow",  # Rfs.flow
    "safe/service/rfs/replicated/tocheck",  # Replicated.tocheck
    "safe/service/user/var",  # User.variables
}


def test_every_attribute_of_the_schema_is_a_field_of_the_model() -> None:
    for path, element in EVERY:
        wanted = {attribute.name for attribute in element.attributes.values() if not attribute.ignored}
        if path in ELSEWHERE or not wanted:
            continue
        fields = {field.name.rstrip("_") for field in dataclasses.fields(CLASSES[path])}
        assert wanted <= fields, path


def test_no_class_stands_for_an_element_that_the_schema_does_not_have() -> None:
    assert set(CLASSES) | ELSEWHERE <= {path for path, _ in EVERY}


@pytest.mark.parametrize(("path", "attribute"), ATTRIBUTES, ids=[path for path, _ in ATTRIBUTES])
def test_defaults_and_supported_values_are_values_of_their_attribute(path: str, attribute: Attribute) -> None:
    assert not (attribute.required and attribute.default is not None)
    assert attribute.expected
    if attribute.default is not None:
        attribute.read(attribute.default)
    for text in attribute.supported or ():
        attribute.read(text)
    assert bool(attribute.unit) == attribute.type.name.startswith("duration")
    assert not attribute.unit or attribute.unit in values.MICROSECONDS


def test_what_may_change_while_the_module_runs_is_what_the_spec_lists_and_who_serves_whom() -> None:
    dynamic = {path for path, element in elements(userconfig_grammar().root) if element.dyn}
    dynamic |= {path for path, attribute in ATTRIBUTES if attribute.dyn}
    assert dynamic == {
        "safe/service/heart",
        "safe/service/rfs/flow",
        "safe/service/user",
        "safe/service/errd",
        "safe/service/check",
        "safe/service/vip/loadbalancing_list",
        *(f"safe/service/@{name}" for name in ("boot", "boot_delay", "maxloop", "loop_interval", "automatic_reboot")),
        *(f"safe/service/rfs/@{name}" for name in ("async", "nbrei", "reitimeout", "reidetail")),
    }


def test_what_is_ignored_is_what_the_spec_lists() -> None:
    windows = {path for path, attribute in ATTRIBUTES if attribute.windows}
    assert windows == {
        f"safe/service/rfs/@{name}" for name in ("iotimeout", "roflags", "allocthreshold", "nfsbox_options")
    }
    obsolete = {path.rpartition("@")[2] for path, attribute in ATTRIBUTES if attribute.obsolete}
    assert obsolete == {"console", "framework", "connect", "mountover"}


def _agrees(grammar: Grammar, text: str) -> bool:
    """What the tables accept, libxml2 accepts: its error would be the code config.schema. Tells whether it was accepted."""
    problems = Problems("file.xml")
    try:
        read = document.read(text, grammar, problems, {} if grammar.root.name == "safe" else None)
    except ConfigError as error:
        assert error.code != "config.schema", (error.messages, text)
        assert error.message
        return False
    assert grammar.schema.validate(read.tree)
    return True


TEXTS = st.one_of(
    st.sampled_from(
        ["", "on", "off", "0", "1", "-1", "5s", "500ms", "08", " on ", "a b", "*", "/a", "a/../b", "192.0.2.1"]
    ),
    st.sampled_from(
        ["[::1]", "n1", "mirror", "farm", "alias", "tcp", "on_addr", "(", "<", "é", "\t", "\n", "9" * 30, "x" * 99]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), max_size=12),
)


GOOD = {
    "onoff": "on", "yesno": "yes", "duration": "5s", "duration_or_zero": "0", "port": "80", "port_or_any": "*", "positive": "7",
    "natural": "0", "natural_or_ignored": "-1", "name": "n1", "identifier": "A", "interface": "eth0", "process": "a.service",
    "address": "[2001:db8::1]", "address_or_any": "*", "ip": "192.0.2.1", "netmask": "255.0.0.0", "mac": "5a:fe:00:00:00:01",
    "absolute_path": "/a b", "relative_path": "c/d", "suffix": "_x", "ere": "a|b", "crontab": "0 1 * * *", "text": "t",
    "any_text": "",
}  # fmt: skip
BAD = [
    "",
    "on",
    "-1",
    "500us",
    " 08 ",
    "a  b",
    "*",
    "/",
    "a/../b",
    "224.0.0.1",
    "(",
    "<",
    "é",
    "\t",
    "9" * 12,
    "x" * 99,
]


def _element_text(element: Element, luck: random.Random) -> str:
    """An element with some attributes and children: mostly what the grammar wants, now and then something else."""
    attributes = []
    for attribute in element.attributes.values():
        if luck.random() < (0.97 if attribute.required else 0.3):
            good = luck.choice(attribute.type.choices) if attribute.type.choices else GOOD[attribute.type.name]
            attributes.append(f" {attribute.name}={quoteattr(luck.choice(BAD) if luck.random() < 0.02 else good)}")
    children = []
    places = list(element.children) if element.arrangement != "choice" else [luck.choice(element.children)]
    for place in places:
        least = max(place.minimum, int(element.arrangement == "choice"))
        count = least if luck.random() < 0.7 else luck.choice([0, 1, 2])
        children += [_element_text(place.element, luck) for _ in range(count)]
    if luck.random() < 0.05:
        luck.shuffle(children)
    if luck.random() < 0.02:
        children.append(luck.choice(["text", "<nonsense/>", "<!-- comment -->", "<?pi?>", "&#10;"]))
    return f"<{element.name}{''.join(attributes)}>{''.join(children)}</{element.name}>"


@pytest.mark.parametrize("name", GRAMMARS)
def test_the_tables_are_never_more_generous_than_the_schema(name: str) -> None:
    grammar = GRAMMARS[name]
    accepted = [_agrees(grammar, _element_text(grammar.root, random.Random(seed))) for seed in range(1500)]
    assert 100 < sum(accepted) < 1400, "the files are all good or all bad: this proves nothing"


@pytest.mark.parametrize("name", GRAMMARS)
def test_the_schema_is_never_more_generous_than_the_tables_about_form(name: str) -> None:
    """What libxml2 accepts is refused for its values only: a time cut down, an address that is none, a macro."""
    grammar = GRAMMARS[name]
    for seed in range(1500):
        text = _element_text(grammar.root, random.Random(seed))
        if grammar.schema.validate(etree.fromstring(text)):
            try:
                document.read(text, grammar, Problems("file.xml"), None)
            except ConfigError as error:
                assert {found.code for found in (error, *error.others)} <= {"config.value", "config.duration"}, text


TYPES = {attribute.type.name: attribute for _, attribute in ATTRIBUTES if attribute.type.name}


def _type_schema(name: str) -> etree.XMLSchema:
    """libxml2's validator for `<probe>` of one of the named types."""
    schema = etree.parse(SCHEMAS / "userconfig.xsd")
    etree.SubElement(schema.getroot(), "{http://www.w3.org/2001/XMLSchema}element", name="probe", type=name)
    return etree.XMLSchema(schema)


VALIDATORS = {name: _type_schema(name) for name in TYPES}


@settings(max_examples=1000, deadline=None)
@given(name=st.sampled_from(sorted(TYPES)), text=TEXTS)
@example(name="identifier", text="A\xa0")
def test_a_value_that_is_read_is_a_value_of_the_schema(name: str, text: str) -> None:
    try:
        TYPES[name].read(text)
    except values.BadValue as bad:
        assert bad.reason
        return
    probe = etree.Element("probe")
    probe.text = text
    assert VALIDATORS[name].validate(probe)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_with_a_sentence_and_never_with_a_crash(data: st.DataObject) -> None:
    grammar, text = data.draw(
        st.sampled_from(
            [(GRAMMARS["cluster.xml"], CLUSTER), *((GRAMMARS["userconfig.xml"], t) for t in (MIRROR, FARM))]
        )
    )
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 12))
    _agrees(grammar, text[:at] + data.draw(TEXTS) + text[at + cut :])


def test_libxml2_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the tables more generous than the schema, nothing would be applied all the same."""
    true = userconfig_grammar()
    generous = dataclasses.replace(
        true.root.attributes.get("x") or next(iter(true.root.child("service").attributes.values())),  # type: ignore[union-attr]
        name="invented",
        required=False,
    )
    service = true.root.child("service")
    assert service is not None
    wider = dataclasses.replace(service, attributes={**service.attributes, "invented": generous})
    root = dataclasses.replace(
        true.root,
        children=tuple(
            dataclasses.replace(place, element=wider) if place.element is service else place
            for place in true.root.children
        ),
    )
    with pytest.raises(ConfigError, match="The attribute 'invented' is not allowed") as refusal:
        document.read(
            mirror(attributes='invented="mirror"'), Grammar(root, true.schema), Problems("userconfig.xml"), {}
        )
    assert (refusal.value.code, refusal.value.line) == ("config.schema", 1)
