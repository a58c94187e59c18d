# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of the card's management socket: one JSON object on a line each way (SPEC 8.4)."""
import json
import socket

from svio_tool.ui import SvioError


class ManagementSocket:
    def __init__(self, path, timeout=30):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(self.path)
        except OSError as error:
            self.socket.close()
            raise SvioError(f"No card answers at the management socket {path}: {error.strerror}.") from error
        self.file = self.socket.makefile("r")

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def ask(self, op, **fields):
        """The answer of a command that was done; its error as an exception."""
        try:
            self.socket.sendall((json.dumps({"op": op, **fields}) + "\n").encode())
            line = self.file.readline()
        except TimeoutError as error:
            raise SvioError(f"The card's management did not answer {op} in time.") from error
        except ConnectionError:
            line = ""
        if not line:
            raise SvioError(f"The card's management closed the connection at {op}.")
        answer = json.loads(line)
        if answer["status"] not in ("OK", "TRIMMED"):
            raise SvioError(f"The card's management refused {op}: {answer['status']}, {answer.get('error')}")
        return answer
