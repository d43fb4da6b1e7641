"""Takes what Alertmanager posts, and gives it back to who asks: GET /, the notifications in their order."""

import http.server
import json

notifications = []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        notifications.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(b"{}")

    def do_GET(self):
        self._answer(json.dumps(notifications).encode())

    def _answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
