"""An issuer of OIDC tokens with a key set that it serves over HTTP."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

AUDIENCE = "aurumai"


class TestIssuer:
    """settings: with which an API takes its tokens."""

    __test__ = False

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        content = json.dumps({"keys": [{**public, "kid": "one", "alg": "ES256", "use": "sig"}]}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.settings = {"AURUM_AUTH_OIDC_ISSUER": self.url, "AURUM_AUTH_OIDC_JWKS_URL": f"{self.url}/keys"}

    def token(self, **claims: Any) -> str:
        """A signed token; claims add to, or replace, those that every token has."""
        now = int(time.time())
        content = {"iss": self.url, "aud": AUDIENCE, "sub": "user", "iat": now, "exp": now + 3600, **claims}
        return jwt.encode(content, self._key, algorithm="ES256", headers={"kid": "one"})

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
