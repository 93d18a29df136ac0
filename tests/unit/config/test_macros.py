"""Macros (spec §3.0, §3.1)."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from safekit.config import safeconf
from tests.unit.config.samples import load, mirror, refused

names = st.text(string.ascii_letters + "_", min_size=1, max_size=8)
# What XML attribute values can hold without being normalised.
plain = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cs", "Cc", "Cn"]), max_size=20
)


def quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def variable(text: str, *, macros: str = "", environment: dict[str, str] | None = None) -> str:
    user = load(mirror(f'<user><var name="X" value="{text}"/></user>', macros=macros), environment).service.user
    assert user is not None
    return user.variables["X"]


def test_a_macro_is_replaced_by_its_value() -> None:
    assert variable("a %M% b%M%", macros='<macro name="M" value="1, 2"/>') == "a 1, 2 b1, 2"


def test_the_environment_gives_what_the_file_does_not_define() -> None:
    assert variable("%HOME_OF%", environment={"HOME_OF": "/srv"}) == "/srv"


def test_a_macro_wins_over_the_environment() -> None:
    assert variable("%M%", macros='<macro name="M" value="file"/>', environment={"M": "environment"}) == "file"


def test_a_macro_may_use_the_macros_above_it() -> None:
    assert variable("%B%", macros='<macro name="A" value="1"/><macro name="B" value="%A%2"/>') == "12"


def test_a_macro_cannot_use_the_macros_below_it() -> None:
    error = refused(mirror(macros='<macro name="B" value="%A%2"/><macro name="A" value="1"/>'))
    assert error.code == "config.macro"
    assert error.message == (
        'userconfig.xml, line 1: <macro value="%A%2">: the macro A is not defined; '
        'expected <macro name="A" value="…"/> above, or an environment variable A'
    )


def test_an_unknown_macro_is_refused_once_with_its_line() -> None:
    error = refused('<safe>\n<service mode="mirror">\n<heart><heartbeat\nname="%LAN%"/></heart></service></safe>')
    assert (error.code, error.element, error.attribute, error.value) == ("config.macro", "heartbeat", "name", "%LAN%")
    assert error.line in (3, 4)
    assert error.others == ()


def test_a_macro_in_a_comment_is_nobody_s() -> None:
    load(mirror("<!-- %NOTHING% -->"))


def test_a_percent_sign_is_a_percent_sign() -> None:
    assert variable("100% of 50%, %d, %a b%") == "100% of 50%, %d, %a b%"
    assert variable("date +%P%Y%P%m", macros='<macro name="P" value="%"/>') == "date +%Y%m"


def test_expansion_keeps_the_lines_of_the_file() -> None:
    text = mirror(
        '\n\n<user>\n<var name="X" value="%L%"/>\n</user>\n<errd/>', macros='<macro name="L" value="a\nb\nc"/>'
    )
    errd = load(text).service.errd
    assert errd is not None
    assert errd.line == text[: text.index("<errd")].count("\n") + 1


@given(name=names, value=plain)
def test_a_value_never_changes_the_structure(name: str, value: str) -> None:
    assert variable(f"%{name}%", environment={name: value}) == value


@given(name=names, value=plain)
def test_a_value_is_not_looked_at_again(name: str, value: str) -> None:
    macro = f'<macro name="{name}" value="{quoted(value)}"/>'
    if f"%{name}%" not in value and "%" not in value:
        assert variable(f"%{name}%", macros=macro) == value
    assert variable("%OUTSIDE%", macros='<macro name="IN" value="x"/>', environment={"OUTSIDE": "%IN%"}) == "%IN%"


def test_a_value_with_a_character_that_xml_forbids_is_refused() -> None:
    error = refused(mirror('<user><var name="X" value="%M%"/></user>'), {"M": "\x00"})
    assert error.code == "config.macro"
    assert "a character that XML does not allow" in error.message


def test_a_macro_is_defined_once() -> None:
    error = refused(mirror(macros='<macro name="M" value="1"/>\n<macro name="M" value="2"/>'))
    assert error.message == (
        'userconfig.xml, line 2: <macro name="M">: this macro is defined already in line 1; expected each macro defined once'
    )


def test_macros_are_expanded_in_the_failover_rules_too() -> None:
    rules = "<failover><![CDATA[%L%: if (ip.? == down) then stop();]]><![CDATA[\n/* a < b & c */]]></failover>"
    loaded = load(mirror(rules, macros='<macro name="L" value="mine"/>'))
    assert loaded.service.failover_rules is not None
    assert loaded.service.failover_rules.sections == (
        "mine: if (ip.? == down) then stop();",
        "\n/* a < b & c */",
    )
    assert "mine: if (ip.? == down)" in safeconf(loaded)


def test_a_macro_cannot_end_a_section_of_rules() -> None:
    error = refused(mirror("<failover><![CDATA[%M%]]></failover>"), {"M": "]]><x/>"})
    assert error.code == "config.macro"


def test_the_model_keeps_the_macros_with_their_values() -> None:
    loaded = load(mirror(macros='<macro name="A" value="1"/><macro name="B" value="%A%%E%"/>'), {"E": "e"})
    assert [(macro.name, macro.value) for macro in loaded.macros] == [("A", "1"), ("B", "1e")]
