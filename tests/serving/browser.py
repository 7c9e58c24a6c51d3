"""Headless Chromium, driven by the DevTools protocol over two pipes: no package is needed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium() -> str | None:
    """The path of a browser that this can drive."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


_PIPED = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1].split()]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the browser, which reads from 3 and writes to 4."""


class Browser:
    """One page of a browser, which keeps nothing.

    Args:
        seconds: after which an answer is given up.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        self._seconds = seconds
        self.wrong: list[str] = []
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs, self._out = os.pipe()
        self._in, answers = os.pipe()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _PIPED,
                f"{theirs} {answers}",
                str(find_chromium()),
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--remote-debugging-pipe",
                f"--user-data-dir={self._folder.name}",
                "about:blank",
            ],
            pass_fds=(theirs, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(answers)
        self._number, self._rest = 0, b""
        self._session = ""
        self._loaded: set[str] = set()
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(10.0)
        os.close(self._in)
        os.close(self._out)
        self._folder.cleanup()

    # --- what a test does ---

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        loader = self.call("Page.navigate", url=url)["loaderId"]
        self.until(lambda: loader in self._loaded, f"{url} did not load")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise AssertionError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, script: str) -> Any:
        """The value of an expression once it is true, in a page that is all there."""
        found: list[Any] = []

        def look() -> bool:
            found[:] = [self._calmly(f"document.readyState === 'complete' && ({script})")]
            return bool(found[0])

        self.until(
            look, f"{script} never became true in\n{self._calmly('document.body.innerText')}"
        )
        return found[0]

    def press(self, key: str) -> None:
        """Press a key; wherever the focus is, as a keyboard does."""
        self.wait("document.readyState === 'complete'")  # its script listens by then
        more = {"text": "\r", "windowsVirtualKeyCode": 13} if key == "Enter" else {"text": key}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **more)

    def size(self, width: int, height: int, dark: bool = False, touch: bool = False) -> None:
        """Be another screen."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if touch else 1,
            mobile=touch,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        tall = min(self.run("document.documentElement.scrollHeight"), 8000)
        wide = self.run("innerWidth")
        clip = {"x": 0, "y": 0, "width": wide, "height": tall, "scale": 1}
        made = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(made["data"]))

    def scripts(self, on: bool) -> None:
        """Whether pages may run scripts."""
        self.call("Emulation.setScriptExecutionDisabled", value=not on)

    def until(self, holds: Any, wrong: str) -> None:
        """Look until something holds."""
        deadline = time.monotonic() + self._seconds
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(wrong)
            self._take(0.02)

    # --- the protocol ---

    def call(self, method: str, **parameters: Any) -> Any:
        """What a method of the protocol gives."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline:
            for said in self._take(1.0):
                if said.get("id") == number:
                    if "error" in said:
                        raise AssertionError(f"{method}: {said['error']}")
                    return said["result"]
        raise AssertionError(f"the browser does not answer {method}")

    def _attach(self) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def _calmly(self, script: str) -> Any:
        """The value of an expression; None while a page is being left."""
        try:
            return self.run(script)
        except AssertionError:
            return None

    def _take(self, seconds: float) -> list[dict[str, Any]]:
        """What the browser says, once it says something."""
        if not select.select([self._in], [], [], seconds)[0]:
            return []
        *whole, self._rest = (self._rest + os.read(self._in, 1 << 20)).split(b"\0")
        said = [json.loads(one) for one in whole]
        for one in said:
            self._note(one.get("method"), one.get("params", {}))
        return said

    def _note(self, method: str | None, about: dict[str, Any]) -> None:
        if method == "Page.lifecycleEvent" and about["name"] == "load":
            self._loaded.add(about["loaderId"])
        elif method == "Runtime.exceptionThrown":
            self.wrong.append(str(about["exceptionDetails"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.wrong.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and about["type"] == "error":
            self.wrong.append(str(about["args"]))
