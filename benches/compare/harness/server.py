"""Prefect's own server, started as its documentation says, on a free port and with a database of its own."""

import os
import shutil
import socket
import subprocess
import time
import urllib.request

from . import process


class Server:
    def __init__(self, prefect, home):
        self.prefect = prefect
        self.home = home / "home"
        self.database = self.home / "prefect.db"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = kept | {
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
            # Nothing is sent to anybody by a measurement.
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }

    def start(self):
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        with open(self.home / "server.log", "wb") as log:
            command = [self.prefect, "server", "start", "--port", str(self.port)]
            self.child = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home
            )
        deadline = time.monotonic() + 180
        while True:
            try:
                with urllib.request.urlopen(self.environment["PREFECT_API_URL"] + "/health", timeout=2):
                    return
            except OSError:
                pass
            if self.child.poll() is not None or time.monotonic() > deadline:
                self.stop()
                last = (self.home / "server.log").read_text(errors="replace").strip().splitlines()[-2:]
                raise process.Failed(f"its server does not start: {process.without_places(' '.join(last)) or 'it says nothing'}")
            time.sleep(0.2)

    def ask(self, *words):
        done = subprocess.run([self.prefect, *words], env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise process.Failed(f"`prefect {' '.join(words)}` failed: {process.without_places(done.stderr.strip()[-200:])}")

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def forget_peak(self):
        process.forget_peak(self.child.pid)

    def peak(self):
        return process.resident_peak(self.child.pid)

    def settled(self, now, complete, still=60, longest=180):
        """What `now` gives when it is `complete`, or has not changed for `still` seconds; and how late that was."""
        start = changed = time.monotonic()
        last = now()
        while last != complete and time.monotonic() - changed < still and time.monotonic() - start < longest:
            time.sleep(0.5)
            seen = now()
            if seen != last:
                last, changed = seen, time.monotonic()
        return last, changed - start
