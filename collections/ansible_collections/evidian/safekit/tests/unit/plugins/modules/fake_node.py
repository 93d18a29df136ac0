# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# A node behind the local API, as the modules of the collection see it: it keeps a cluster and application modules,
# answers as the API documents, and remembers every order that it got. A question and a rehearsal (check) are no orders.

from __future__ import annotations

import base64
import hashlib
import json
from urllib.parse import parse_qs, urlsplit

from ansible_collections.evidian.safekit.plugins.module_utils._client import NoDaemon


class Refusal(Exception):
    def __init__(self, status, code, message, **facts):
        super().__init__(message)
        self.status = status
        self.error = {"code": code, "message": message, **facts}


def state_of(name, substate, since="2026-01-01T00:00:00Z", **more):
    return {
        "state": name,
        "substate": substate,
        "since": since,
        "reason": "",
        "detail": "",
        "remote_state": None,
        "waiting_for": [],
        "automatic_failover": "",
        "progress": None,
        **more,
    }


def signature(*parts):
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class FakeNode:
    def __init__(self, name="n1"):
        self.name = name
        self.installed = True
        self.cluster = None
        self.key = None
        self.locked = False
        self.modules = {}
        self.witness = {"serving": False, "addr": None, "port": 4803, "clusters": []}
        self.witness_keys = {}
        self.orders = []
        self.refuse = {}
        self.after_action = {
            "start": state_of("ALONE", "Ready", "later"),
            "stop": state_of("STOP", "NotReady", "later"),
            "prim": state_of("ALONE", "Ready", "later"),
            "second": state_of("SECOND", "Ready", "later"),
            "restart": state_of("PRIM", "Ready", "later"),
        }

    def module(self, name):
        if name not in self.modules:
            raise Refusal(404, "module.unknown", f"no module {name}")
        return self.modules[name]

    def __call__(self, method, path, body, seconds):
        if not self.installed:
            raise NoDaemon("/run/safekit/safekitd.sock", "no such socket", installed=False)
        split = urlsplit(path)
        assert split.path.startswith("/api/v1/"), path
        parts = split.path[len("/api/v1/") :].split("/")
        data = json.loads(body) if body else {}
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        if method != "GET" and not data.get("check"):
            self.orders.append("{} /{}".format(method, "/".join(parts)))
        try:
            answer = self.answer(method, parts, data, query)
        except Refusal as refusal:
            return refusal.status, json.dumps({"error": refusal.error}).encode()
        return 200, json.dumps(answer).encode()

    def answer(self, method, parts, data, query):
        key = "{} /{}{}".format(method, "/".join(parts), " check" if data.get("check") else "")
        if key in self.refuse:
            raise self.refuse[key]
        if parts == ["node"]:
            return {"name": self.name, "hostname": self.name, "version": "0", "os": "Linux", "uptime_s": 1.0}
        if parts[0] == "cluster":
            return self.answer_cluster(method, parts[1:], data)
        if parts[0] == "witness":
            return self.answer_witness(method, parts[1:], data)
        if parts == ["modules"]:
            return {"modules": [self.info(name) for name in sorted(self.modules)]}
        return self.answer_module(method, parts[1], parts[2:], data, query)

    def answer_witness(self, method, rest, data):
        if not rest:
            return self.witness
        name, others = rest[1], [cluster for cluster in self.witness["clusters"] if cluster["name"] != rest[1]]
        if method == "DELETE":
            changed, self.witness = len(others) < len(self.witness["clusters"]), {**self.witness, "clusters": others}
            self.witness_keys.pop(name, None)
            return {"changed": changed}
        known = self.witness_keys.get(name)
        if known is not None and known != data["key"] and not data["replace_key"]:
            raise Refusal(409, "witness.other_key", f"this witness serves a cluster {name} with another key")
        wanted = {
            "serving": True,
            "addr": data["addr"] or self.witness["addr"],
            "port": data["port"] or self.witness["port"],
            "clusters": [*others, {"name": name, "nodes": sorted(data["nodes"]), "registers": []}],
        }
        changed = (wanted, known) != (self.witness, data["key"])
        if not data["check"]:
            self.witness, self.witness_keys[name] = wanted, data["key"]
        return {"changed": changed}

    def answer_cluster(self, method, rest, data):
        if rest == ["key"]:
            return {"key": self.key}
        if rest == ["state"]:
            return {"nodes": [{"name": self.name, "reachable": True, "modules": [], "signature": "s"}]}
        if method == "GET":
            return {
                "configured": self.cluster is not None,
                "signature": None if self.cluster is None else signature(self.cluster, self.key),
                "date": None,
                "locked": self.locked,
                "xml": self.cluster,
                "node": self.name if self.cluster else None,
                "lans": [],
            }
        if method == "DELETE":
            changed, self.cluster, self.key = self.cluster is not None, None, None
            return {"changed": changed}
        if self.locked and data["lock"] != "unlock":
            raise Refusal(409, "cluster.locked", "the cluster configuration is locked")
        key = data["key"] or self.key or base64.b64encode(b"made").decode()
        changed = (self.cluster, self.key) != (data["xml"], key)
        if not data["check"]:
            self.cluster, self.key = data["xml"], key
            self.locked = data["lock"] == "lock" or (self.locked and data["lock"] != "unlock")
        return {
            "changed": changed,
            "signature": signature(data["xml"], key),
            "warnings": ["w"] if "warn" in data["xml"] else [],
        }

    def info(self, name):
        module = self.module(name)
        return {
            "name": name,
            "id": module["id"],
            "mode": module["mode"],
            "configured": module["applied"] is not None,
            "signature": None if module["applied"] is None else signature(module["applied"]),
            "edited_signature": signature(module["package"]),
            "date": None,
            "state": module["state"],
            "ports": {},
            "boot": "ignore",
            "userconfig_xml": module["userconfig"],
        }

    def answer_module(self, method, name, rest, data, query):
        if not rest and method == "PUT":
            return self.install(name, data)
        module = self.module(name)
        if not rest and method == "GET":
            return self.info(name)
        if not rest and method == "DELETE":
            del self.modules[name]
            return {"changed": True}
        if rest == ["package"]:
            return {"package": module["package"]}
        if rest == ["config"]:
            changed = module["applied"] != module["package"]
            if not data["check"]:
                module["applied"] = module["package"]
                if module["state"]["state"] == "NOT_CONFIGURED":
                    module["state"] = state_of("STOP", "NotReady")
            return {"changed": changed, "signature": signature(module["package"]), "warnings": []}
        if rest == ["deconfig"]:
            module["applied"] = None
            return {"changed": True}
        if rest[0] == "actions":
            action = rest[1]
            now = module["state"]["state"]
            if action == "swap":
                module["state"] = state_of("SECOND" if now == "PRIM" else "PRIM", "Ready", "later")
            else:
                module["state"] = self.after_action[action]
            return {"accepted": True, "changed": True, "state": state_of("WAIT", "Transient", "now")}
        if rest == ["state"]:
            return module["state"]
        if rest == ["wait"]:
            state = module["state"]
            if state["state"] in query["state"].split(",") and state["substate"] == query["substate"]:
                return state
            raise Refusal(408, "wait.timeout", "not reached", state=state)
        if rest == ["resources"]:
            return {"resources": [{"name": "rfs.uptodate", "value": "up", "date": "d"}]}
        if rest == ["log"]:
            return {
                "entries": [{"id": 1, "date": "d", "origin": "heart", "level": "E", "message": "the script failed"}]
            }
        raise AssertionError((method, name, rest))

    def install(self, name, data):
        present = self.modules.get(name)
        number = data["id"] or (present["id"] if present else len(self.modules) + 1)
        changed = present is None or (present["package"], present["id"]) != (data["package"], number)
        if not data["check"]:
            from ansible_collections.evidian.safekit.plugins.module_utils._package import unpacked

            tree = unpacked(base64.b64decode(data["package"]), name)
            kept = present or {"applied": None, "state": state_of("NOT_CONFIGURED", "NotReady"), "mode": "mirror"}
            self.modules[name] = {
                **kept,
                "id": number,
                "package": data["package"],
                "userconfig": tree["conf/userconfig.xml"].text,
            }
        return {"changed": changed, "id": number, "warnings": []}
