"""The parts of a private Sigstore that no release brings: keys and certificates, an OIDC issuer
that gives a token to whoever asks, and a certificate log.

    issuer.py FOLDER PORT

writes into FOLDER what Fulcio, Rekor and the timestamp authority are started with, and serves on
127.0.0.1:PORT until it is ended:

    /<issuer>/.well-known/openid-configuration   issuers `email`, `other` and `workflow`
    /token?issuer=<issuer>&claim=value…          a token, as text
    /ct/ct/v1/add-pre-chain                      RFC 6962
    /certificate?san=uri:…                       a certificate of another, private authority for the
                                                 PEM key in the body, valid from a minute ago for an
                                                 hour, or with `expired=1` until a minute ago
"""

import base64
import http.server
import json
import pathlib
import sys
import time
import urllib.parse

from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from forge.authorities import Authority, CertificateLog, pem
from forge.keys import Key

PASSWORD = b"pullgate"


def write(folder, port):
    """Everything the real servers read; gives what this one serves with."""
    start, end = int(time.time()) - 3600, int(time.time()) + 10 * 365 * 86400
    root = Authority("Fulcio root", start=start, end=end)
    fulcio = Authority("Fulcio intermediate", root, start=start, end=end, path_length=0,
                       eku=[ExtendedKeyUsageOID.CODE_SIGNING])
    stamping = [ExtendedKeyUsageOID.TIME_STAMPING]
    tsa_root = Authority("TSA root", start=start, end=end)
    tsa = Authority("TSA intermediate", tsa_root, start=start, end=end, path_length=0, eku=stamping)
    tsa_key = Key("p256")
    tsa_leaf = tsa.issue(tsa_key.public, start=start, end=end, eku=stamping, critical_eku=True)
    rekor, log = Key("p256"), CertificateLog()
    private = Authority("Private root", start=start, end=end)
    private = Authority("Private intermediate", private, start=start, end=end, path_length=0)
    for file, content in {
        "fulcio.key": fulcio.key.pkcs8(PASSWORD), "fulcio-chain.pem": pem(*fulcio.chain),
        "fulcio-root.pem": pem(root.certificate), "fulcio-intermediate.pem": pem(fulcio.certificate),
        "tsa.key": tsa_key.pkcs8(PASSWORD), "tsa-chain.pem": pem(tsa_leaf, *tsa.chain),
        "private-chain.pem": pem(*private.chain),
        "rekor.key": rekor.pkcs8(PASSWORD), "rekor.pub": rekor.pem, "ct.pub": log.key.pem,
        # Not only JSON, which Fulcio reads with other names.
        "fulcio.yaml": b"# Fulcio\n" + json.dumps(fulcio_config(port)).encode(),
    }.items():
        (folder / file).write_bytes(content)
    return log, private


def fulcio_config(port):
    """Two issuers of e-mail addresses, and one of workflows whose claims become extensions."""
    base = f"http://127.0.0.1:{port}"
    issuers = {}
    for name in ("email", "other"):
        issuers[f"{base}/{name}"] = {
            "issuer-url": f"{base}/{name}", "client-id": "sigstore", "type": "email"}
    issuers[f"{base}/workflow"] = {
        "issuer-url": f"{base}/workflow", "client-id": "sigstore",
        "type": "ci-provider", "ci-provider": "workflow"}
    return {
        "oidc-issuers": issuers,
        "ci-issuer-metadata": {"workflow": {
            "default-template-values": {"url": "https://git.example"},
            "extension-templates": {
                "github-workflow-trigger": "event_name",
                "github-workflow-sha": "sha",
                "github-workflow-name": "workflow",
                "github-workflow-repository": "repository",
                "github-workflow-ref": "ref",
                "build-signer-uri": "{{ .url }}/{{ .job_workflow_ref }}",
                "runner-environment": "runner_environment",
                "source-repository-uri": "{{ .url }}/{{ .repository }}",
                "source-repository-digest": "sha",
                "source-repository-ref": "ref",
                "build-config-uri": "{{ .url }}/{{ .workflow_ref }}",
                "build-trigger": "event_name",
            },
            "subject-alternative-name-template": "{{ .url }}/{{ .job_workflow_ref }}",
        }},
    }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path, _, query = self.path.partition("?")
        base = f"http://127.0.0.1:{self.server.server_port}"
        name, _, rest = path[1:].partition("/")
        if rest == ".well-known/openid-configuration":
            self.answer({"issuer": f"{base}/{name}", "jwks_uri": f"{base}/{name}/keys",
                         "authorization_endpoint": f"{base}/auth", "token_endpoint": f"{base}/token",
                         "response_types_supported": ["code"], "subject_types_supported": ["public"],
                         "id_token_signing_alg_values_supported": ["RS256"]})
        elif rest == "keys":
            numbers = self.server.key.public.public_numbers()
            self.answer({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1",
                                   "n": number(numbers.n), "e": number(numbers.e)}]})
        elif name == "token":
            claims = dict(urllib.parse.parse_qsl(query))
            now = int(time.time())
            claims |= {"iss": f"{base}/{claims.pop('issuer')}", "aud": "sigstore", "iat": now,
                       "nbf": now - 10, "exp": now + 600}
            if "email" in claims:
                claims |= {"email_verified": True}
            claims.setdefault("sub", claims.get("email", ""))
            head = {"alg": "RS256", "typ": "JWT", "kid": "1"}
            signed = ".".join(text(json.dumps(part).encode()) for part in (head, claims))
            self.answer(f"{signed}.{text(self.server.key.sign(signed.encode()))}")
        else:
            self.send_error(404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path, _, query = self.path.partition("?")
        if path == "/certificate":
            self.answer(self.certificate(body, dict(urllib.parse.parse_qsl(query))))
        elif path.endswith("/add-pre-chain"):
            chain = [base64.b64decode(c) for c in json.loads(body)["chain"]]
            self.answer(self.server.log.answer(chain, time.time_ns() // 1_000_000))
        else:
            self.send_error(404)

    def certificate(self, public, query):
        now = int(time.time())
        start, end = (now - 3600, now - 60) if "expired" in query else (now - 60, now + 3600)
        public = serialization.load_pem_public_key(public)
        return pem(self.server.private.issue(public, [query["san"]], start=start, end=end)).decode()

    def answer(self, value):
        body = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain" if isinstance(value, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def text(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value):
    return text(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def main():
    folder, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.key = Key("rsa2048")
    server.log, server.private = write(folder, port)
    (folder / "ready").touch()
    server.serve_forever()


if __name__ == "__main__":
    main()
