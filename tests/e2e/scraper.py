"""Reads Ray's Prometheus endpoint while a run goes on, as Prometheus would."""

import re
import threading
import urllib.error
import urllib.request
from pathlib import Path


class Scraper(threading.Thread):
    """Waits for the address in a run's log, then scrapes it until `stop`.

    seen: (name, value of the label `curve`) of every gauge of ours.
    listening: local addresses of the endpoint's port as the kernel lists them, in hexadecimal.
    """

    def __init__(self, log: Path):
        super().__init__(daemon=True)
        self.log, self.seen, self.listening = log, set(), set()
        self._stop_event = threading.Event()

    def stop(self) -> None:
        self._stop_event.set()
        self.join()

    def run(self) -> None:
        while not self._stop_event.wait(0.5):
            text = self.log.read_text() if self.log.is_file() else ""
            if address := re.search(r"Ray metrics: (http://\S+:(\d+)/metrics)", text):
                self._scrape(address[1], int(address[2]))

    def _scrape(self, url: str, port: int) -> None:
        try:
            page = urllib.request.urlopen(url, timeout=5).read().decode()
        except (urllib.error.URLError, OSError):  # before Ray serves, and after the run
            return
        self.seen |= set(re.findall(r'^(ray_avar_\w+)\{.*?\bcurve="([^"]*)"', page, re.MULTILINE))
        sockets = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        listening = re.findall(r"^ *\d+: ([0-9A-F]+):([0-9A-F]+) \S+ 0A ", sockets, re.MULTILINE)
        self.listening |= {local for local, number in listening if int(number, 16) == port}
