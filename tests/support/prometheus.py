"""A small HTTP server that answers instant queries as Prometheus does."""

import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Prometheus:
    """answers: by a part of the query, the values of its series by pod; what is not there yields nothing."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, float]] = {}
        self.asked: list[str] = []
        prometheus = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["query"][0]
                prometheus.asked.append(query)
                found = next((values for part, values in prometheus.answers.items() if part in query), {})
                result = [{"metric": {"k8s_pod_name": pod}, "value": [0, str(value)]} for pod, value in found.items()]
                body = json.dumps({"status": "success", "data": {"result": result}}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
