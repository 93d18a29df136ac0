"""What a person copies from is accepted by a node: each inventory, through the filters and the catalogue of the collection,
gives a cluster and modules that the runtime takes without a complaint, and that it does in full.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safekit.config import check_module, load_cluster, load_userconfig, module_nodes, unsupported

ROOT = Path(__file__).parents[3]

PLAYBOOK = """
- hosts: safekit[0]
  gather_facts: false
  become: false
  vars:
    ansible_connection: local
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
    safekit_before: {modules: []}
  tasks:
    - ansible.builtin.copy:
        content: "{{ safekit_cluster | evidian.safekit.to_cluster }}"
        dest: "{{ folder }}/cluster.xml"
        mode: "0600"
    - ansible.builtin.include_tasks: one.yml
      loop: "{{ safekit_modules }}"
      loop_control:
        loop_var: item
"""

ONE = """
- ansible.builtin.include_role:
    name: evidian.safekit.module
    tasks_from: "{{ part }}"
  loop: [nodes, catalogue]
  loop_control:
    loop_var: part
  vars:
    safekit_module_name: "{{ item.name }}"
    safekit_module_id: "{{ item.id }}"
    safekit_module_app: "{{ item.app | default('') }}"
    safekit_module_nodes: "{{ item.nodes }}"
    safekit_module_settings: "{{ item.settings | default({}) }}"
- ansible.builtin.copy:
    content: "{{ safekit_userconfig | evidian.safekit.to_userconfig }}"
    dest: "{{ folder }}/{{ item.id }}-{{ item.name }}.xml"
    mode: "0600"
- ansible.builtin.copy:
    content: "{{ safekit_scripts.keys() | sort | join(' ') }}"
    dest: "{{ folder }}/{{ item.name }}.scripts"
    mode: "0600"
"""

INVENTORIES = {"demo": ["1-db", "2-web"], "example": ["1-db", "2-web"]}


@pytest.fixture(scope="module", params=sorted(INVENTORIES))
def rendered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "render.yml").write_text(PLAYBOOK)
    (folder / "one.yml").write_text(ONE)
    inventory = ROOT / "inventories" / request.param
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "-i",
        str(inventory),
        "-e",
        f"folder={folder}",
        "render.yml",
    ]
    (folder / "ansible.cfg").touch()
    settings = {
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_HOME": str(folder / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
    }
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **settings}, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return request.param, folder


def test_a_node_takes_the_cluster_and_every_module_of_it(rendered: tuple[str, Path]) -> None:
    name, folder = rendered
    cluster = load_cluster((folder / "cluster.xml").read_bytes())
    files = sorted(path for path in folder.glob("*.xml") if path.name != "cluster.xml")
    assert [path.stem for path in files] == INVENTORIES[name]
    modules = {path.stem.split("-")[1]: load_userconfig(path.read_bytes()) for path in files}
    ids = {path.stem.split("-")[1]: int(path.stem.split("-")[0]) for path in files}
    for module, userconfig in modules.items():
        others = {other: config for other, config in modules.items() if other != module}
        assert unsupported(userconfig) == (), module
        for node in module_nodes(userconfig, cluster):
            check_module(userconfig, cluster, node, others, ids[module], {other: ids[other] for other in others})


def test_every_module_has_the_scripts_of_its_mode(rendered: tuple[str, Path]) -> None:
    _name, folder = rendered
    assert {"prestart", "start_prim", "stop_prim"} <= set((folder / "db.scripts").read_text().split())
    assert {"prestart", "start_both", "stop_both"} <= set((folder / "web.scripts").read_text().split())
