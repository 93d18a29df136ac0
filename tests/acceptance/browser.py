"""A browser as a person has it, without a window: Chromium, spoken to over its debugging pipe, beside the nodes."""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import tempfile
import time
from typing import Any, Self

from tests.nodes import Node
from tests.nodes.engine import beside_the_nodes

PROGRAM = "chromium"
_OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions "
    "--disable-background-networking --disable-component-update --disable-sync --ignore-certificate-errors"
)
"""A certificate that a node made by itself is what a person would click through."""
_ANSWER_S = 120.0


class Browser:
    """One tab, with the network of a node. Dialogs are answered with OK, and remembered; so is what the page complains about."""

    def __init__(self, node: Node) -> None:
        self._profile = tempfile.mkdtemp(prefix="safekit-browser-")
        command = f"exec {PROGRAM} {_OPTIONS} --user-data-dir={self._profile} --remote-debugging-pipe 3<&0 4>&1 >/dev/null 2>&1"
        self._process = subprocess.Popen(
            beside_the_nodes("nsenter", f"--net=/proc/{_process(node)}/ns/net", "bash", "-c", command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._number = 0
        self._unread = b""
        self._session: str | None = None
        self.dialogs: list[str] = []
        self.complaints: list[str] = []

    def __enter__(self) -> Self:
        target = self._do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._do(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(30)
        shutil.rmtree(self._profile, ignore_errors=True)

    def go(self, url: str) -> None:
        """Type this address."""
        failure = self._do("Page.navigate", url=url).get("errorText")
        assert not failure, f"{url}: {failure}"

    def evaluate(self, script: str) -> Any:
        """What a script says in the page; None while there is no page."""
        return self._do("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait(self, script: str, what: str) -> Any:
        """Wait until a script in the page says something true; that."""
        end = time.monotonic() + _ANSWER_S
        while time.monotonic() < end:
            if value := self.evaluate(script):
                return value
            time.sleep(0.2)
        page = self.evaluate("document.location.href + '\\n' + document.body.innerText")
        raise AssertionError(f"{what}: not within {_ANSWER_S:g} s; the page is {page!r}, complaints {self.complaints}")

    def _do(self, method: str, **parameters: object) -> Any:
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        number = self._number
        self._write(message)
        end = time.monotonic() + _ANSWER_S
        while True:
            heard = self._read(end)
            if heard.get("id") == number:
                assert "error" not in heard, f"{method}: {heard['error']}"
                return heard["result"]
            self._event(heard)

    def _event(self, heard: dict[str, Any]) -> None:
        told = heard.get("params", {})
        match heard.get("method"):
            case "Page.javascriptDialogOpening":
                self.dialogs.append(told["message"])
                self._number += 1
                answer = {"id": self._number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                self._write({**answer, "sessionId": self._session})
            case "Log.entryAdded" if told["entry"]["level"] == "error":
                self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
            case "Runtime.exceptionThrown":
                self.complaints.append(str(told["exceptionDetails"].get("text")))

    def _write(self, message: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\0")

    def _read(self, end: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\0" not in self._unread:
            ready = select.select([self._process.stdout], [], [], max(end - time.monotonic(), 0))[0]
            assert ready, f"{PROGRAM} does not answer"
            chunk = self._process.stdout.read(1 << 16)
            assert chunk, f"{PROGRAM} ended"
            self._unread += chunk
        message, _, self._unread = self._unread.partition(b"\0")
        heard: dict[str, Any] = json.loads(message)
        return heard


def _process(node: Node) -> int:
    """The first process of a node, in the eyes of the machine."""
    return int(node.engine.run("inspect", "--format", "{{.State.Pid}}", node.container).out)
