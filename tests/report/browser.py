"""A headless Chromium, driven over its debugging pipe: no port, no package, no network."""

import json
import os
import shutil
import subprocess

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip


def find_chromium():
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page in one Chromium. `events` holds everything it reported."""

    def __init__(self, profile, width=1280, height=900):
        commands, answers = os.pipe(), os.pipe()
        files = {3: commands[0], 4: answers[1]}
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{files[3]} 4>&{files[4]}', find_chromium(), *FLAGS,
             f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"],
            pass_fds=list(files.values()), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in files.values():
            os.close(end)
        self.out, self.into = os.fdopen(commands[1], "wb", 0), os.fdopen(answers[0], "rb")
        self.events, self.count, self.session = [], 0, None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def read(self):
        """The next message; events are kept."""
        letters = bytearray()
        while (letter := self.into.read(1)) not in (b"\0", b""):
            letters += letter
        assert letters, "Chromium has gone"
        message = json.loads(letters)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, path):
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.read()

    def run(self, code):
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key, text=""):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      text=text if kind == "keyDown" else "",
                      windowsVirtualKeyCode={"Enter": 13, "Tab": 9}.get(key, 0))  # fmt: skip

    def complaints(self):
        """What went wrong on the page, in the console's words."""
        said = [
            event for event in self.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")
        ]
        loud = [
            e
            for e in self.events
            if e["method"] == "Runtime.consoleAPICalled" and e["params"]["type"] in ("error", "warning")
        ]
        return [json.dumps(event["params"])[:500] for event in said + loud]

    def requests(self):
        return [
            e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"
        ]

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.out.close()
        self.into.close()
