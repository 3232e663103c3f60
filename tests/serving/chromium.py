"""A headless Chromium, driven over a pipe by the DevTools protocol (https://chromedevtools.github.io/devtools-protocol).

with Chromium(folder) as browser:
    page = browser.open(url)
    page.wait_for("document.title === 'descore'")"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
from collections import deque
from itertools import count
from time import monotonic

BINARY = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    "--autoplay-policy=no-user-gesture-required",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
NAMED_ROLES = {"button", "textbox", "combobox", "checkbox", "radio", "link", "image", "spinbutton", "dialog", "Video"}
LAUNCHER = """
import os, sys
for place, end in enumerate(sys.argv[1:3], start=3):
    os.dup2(int(end), place)
os.execv(sys.argv[3], sys.argv[3:])
"""
PATIENCE = 60
"""Seconds for anything that a busy machine may do slowly."""


class Chromium:
    """The process. It reads commands from descriptor 3 and writes answers and events to descriptor 4."""

    def __init__(self, folder):
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        command = [BINARY, *FLAGS, f"--user-data-dir={folder / 'profile'}"]
        # Above 3 and 4, so that neither is lost while the other takes its place.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, *map(str, ends), *command],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        self._numbers, self._rest, self.events = count(1), b"", deque()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def open(self, url):
        """A new page."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        page.go_to(url)
        return page

    def send(self, method, *, session=None, **params):
        """What the browser answers to a command; events meanwhile are kept in `events`."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = monotonic() + PATIENCE
        while True:
            answer = self._receive(end)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _receive(self, end):
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0, end - monotonic()))
            assert ready, "the browser does not answer"
            block = os.read(self._from, 1 << 16)
            assert block, "the browser has ended"
            self._rest += block
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


class Page:
    """A page of the browser."""

    def __init__(self, browser, session, target):
        self._browser, self._session, self._target = browser, session, target
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        return self._browser.send(method, session=self._session, **params)

    def close(self):
        self._browser.send("Target.closeTarget", targetId=self._target)

    def go_to(self, url):
        self.send("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, code):
        """The value of an expression; a promise is waited for. A script's error fails the test."""
        result = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, condition):
        """Wait until an expression is true, and give its value."""
        code = f"""new Promise((resolve, reject) => {{
            const end = Date.now() + {PATIENCE * 500};
            const look = () => {{
                let value = null;
                try {{ value = {condition}; }} catch {{}}
                if (value) resolve(value);
                else if (Date.now() > end)
                    reject(new Error({json.dumps(condition)} + " in " + document.body.innerText));
                else setTimeout(look, 20);
            }};
            look();
        }})"""
        return self.run(code)

    def text(self, selector="body"):
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def texts(self, selector):
        return self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.innerText)")

    def click(self, selector):
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, text):
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)

    def fill(self, selector, text):
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.type(text)

    def press(self, key, *, code=None, shift=False):
        """Press a key: a character, or a name such as Tab."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
        number = code or codes.get(key) or ord(key.upper())
        text = {"Enter": "\r", "Tab": ""}.get(key, key if len(key) == 1 else "")
        common = {"key": key, "windowsVirtualKeyCode": number, "modifiers": 8 if shift else 0}
        kind = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.send("Input.dispatchKeyEvent", **kind, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def choose_files(self, selector, *paths):
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def resize(self, width, height=900):
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def prefer(self, scheme):
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        """A picture of the whole page."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        picture = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(picture["data"]))

    def unnamed(self):
        """The roles of controls that a screen reader has no name for."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        return [
            role
            for node in nodes
            if not node["ignored"]
            and (role := node["role"]["value"]) in NAMED_ROLES
            and not node.get("name", {}).get("value")
        ]

    def sticking_out(self):
        """What is wider than the window."""
        return self.run(
            "[...document.querySelectorAll('body *')].filter((one) => !one.matches('.unseen, .unseen *, .jump') && "
            "one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 200))"
        )

    def complaints(self):
        """Errors of scripts and of the console, but for refusals of the server; and requests elsewhere."""
        self.run("1")
        events = [event for event in self._browser.events if event.get("sessionId") == self._session]
        return [line for event in events if (line := _complaint(event))]


def _complaint(event):
    params = event.get("params", {})
    if event["method"] == "Runtime.exceptionThrown":
        return str(params["exceptionDetails"])
    if event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
        entry = params["entry"]
        return None if entry["source"] == "network" and "status of" in entry["text"] else str(entry)
    if event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
        return str(params["args"])
    if event["method"] == "Network.requestWillBeSent":
        url = params["request"]["url"]
        return None if url.startswith(("http://127.0.0.1:", "data:", "blob:", "about:")) else url
    return None
