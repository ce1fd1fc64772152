"""A headless Chromium that a test can ask, over a pipe and with nothing but the standard library."""

import base64
import json
import os
import select
import shlex
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PATIENCE = 60  # seconds without a word from the browser


def find_chromium():
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """A browser with one page.

    Args:
        folder: an empty folder for its profile.
    """

    def __init__(self, folder):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # it reads from descriptor 3 and writes to 4
        browser = shlex.join([find_chromium(), *FLAGS, f"--user-data-dir={folder}", "about:blank"])
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {browser} 3<&{theirs_in} 4>&{theirs_out}"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.reader, self.writer = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self.buffer, self.count, self.session, self.errors = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        """End the browser."""
        self.process.terminate()
        self.process.wait()
        self.reader.close()
        self.writer.close()

    def call(self, method, **parameters):
        """The result of a command of the DevTools protocol."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.writer.write(json.dumps(message).encode() + b"\0")
        self.writer.flush()
        answer = self._until(lambda found: found.get("id") == message["id"])
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path):
        """Load a file; what its console says of errors is in `errors` from then on."""
        self.errors = []
        self.call("Page.navigate", url=path.as_uri())
        self._until(lambda found: found.get("method") == "Page.loadEventFired")

    def run(self, script):
        """The value of a JavaScript expression, awaited."""
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key):
        """Press a key, "Tab" or " ", as a keyboard does."""
        text = {"text": key} if len(key) == 1 else {}
        code = {"Tab": 9, " ": 32}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def resize(self, width, height=900):
        """As wide as a screen of so many pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def screenshot(self, path):
        """Write the whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        area = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        content = self.call("Page.captureScreenshot", clip=area, captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(content))

    def _until(self, wanted):
        while True:
            while b"\0" not in self.buffer:
                if not select.select([self.reader], [], [], PATIENCE)[0]:
                    raise TimeoutError(f"Chromium has said nothing for {PATIENCE} seconds")
                piece = os.read(self.reader.fileno(), 2**16)
                if not piece:
                    raise RuntimeError("Chromium has gone away")
                self.buffer += piece
            text, self.buffer = self.buffer.split(b"\0", 1)
            found = json.loads(text)
            self._note(found)
            if wanted(found):
                return found

    def _note(self, found):
        method, parameters = found.get("method"), found.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(parameters["exceptionDetails"]["text"])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.errors.append(str(parameters["args"]))
