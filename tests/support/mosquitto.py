"""A Mosquitto broker for tests, which can be killed and restarted with its persistent state."""

import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.waiting import wait_for

PROGRAM = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")


class Mosquitto:
    def __init__(self, folder: Path, more: str = "", *, persistent: bool = True, anonymous: bool = True) -> None:
        self.skip_if_missing()
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "mosquitto.conf"
        self._log = folder / "mosquitto.log"
        kept = f"persistence true\npersistence_location {folder}/\nautosave_on_changes true\nautosave_interval 1\n"
        self._file.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous {str(anonymous).lower()}\nuser root\nlog_type warning\n"
            f"max_queued_messages 0\nmax_inflight_messages 0\n{kept if persistent else ''}{more}\n"
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @staticmethod
    def skip_if_missing() -> None:
        """Skips the test if Mosquitto is not installed."""
        if PROGRAM is None:
            pytest.skip("mosquitto is not installed")

    def start(self) -> None:
        assert PROGRAM is not None
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([PROGRAM, "-c", str(self._file)], stdout=log, stderr=subprocess.STDOUT)
        wait_for(self._is_listening, 10, f"mosquitto answers, see {self._log}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stops the broker. With SIGTERM it saves its state first; with SIGKILL it does not."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(10)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def _is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
