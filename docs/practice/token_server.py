"""A token server to practise with: `python token_server.py PORT` serves tokens.csv beside it."""

import csv
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

TOKENS = Path(__file__).parent / "tokens.csv"


class Handler(BaseHTTPRequestHandler):
    """Answers `GET /APPID` with the appid's token."""

    def do_GET(self) -> None:
        """Answer 403 without the key, 404 for an unknown appid, else the token."""
        with TOKENS.open(encoding="utf-8") as file:
            tokens = {line["appid"]: line["access_token"] for line in csv.DictReader(file)}
        appid = self.path.removeprefix("/")
        allowed = self.headers["Authorization"] == "Bearer practice-key"
        self.send_response(403 if not allowed else 200 if appid in tokens else 404)
        self.end_headers()
        if allowed and appid in tokens:
            self.wfile.write(json.dumps({"access_token": tokens[appid], "expires_in": 7200}).encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)  # noqa: T201  says that it is ready
    server.serve_forever()
