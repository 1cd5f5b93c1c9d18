"""Who judges the corpus, and what each of them can be asked.

A judge answers `good` or `bad` to each case that it can express, and is not asked the others.
"""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

from cases import (ALGORITHMS, ATTESTATIONS, BARE, BUNDLES, CERTIFICATES, ISSUER, KEYLESS, KEYS, LEGACY,
                   LOGGED, MOCKED, PREDICATE)
from forge.authorities import pem

# What is looked at in the registry.
OF_THE_REGISTRY = ("child-of-signed-index", "index-of-signed-child", "elsewhere-nothing")
# What is said about the statement, which bundle verifiers leave to their callers.
OF_THE_STATEMENT = ("subject-mismatch", "predicate-type", "one-of-two", *OF_THE_REGISTRY)


class Judges:
    """The judges of one run. `folder` has the files of the run, `world` the Sigstore that is trusted."""

    def __init__(self, tools, pullgate, folder, world, mocked, jobs):
        self.tools, self.pullgate, self.folder, self.jobs = tools, pullgate, folder, jobs
        self.pem = {
            "fulcio-chain": pem(*world.fulcio.chain), "private-chain": pem(*world.private.chain),
            "old-private-chain": pem(*world.old_private.chain), "tsa-chain": pem(*world.tsa.chain),
            "constrained-chain": pem(*world.constrained.chain),
            "fulcio-all": pem(world.old_fulcio.certificate, *world.fulcio.chain),
            "private-all": pem(world.old_private.certificate, world.constrained.certificate,
                               *world.private.chain),
            "rekor": world.rekor1.key.pem, "ct": world.ct.key.pem, **mocked.pem,
        }
        for name, content in self.pem.items():
            self.file(name + ".pem", content)
        self.root = self.file("trusted_root.json", json.dumps(world.trusted_root(mocked=mocked.trust)))
        self.private_root = self.file("private_root.json", json.dumps(world.trusted_root(private=True)))
        self.home = folder / "home"
        self.home.mkdir()

    def all(self):
        """Name, which cases it is asked, and how it answers all of them."""
        judges = [
            ("cosign 2", self.cosign2_knows, self.each(self.cosign2)),
            ("cosign 3", self.cosign3_knows, self.each(self.cosign3)),
            ("sigstore-python", self.python_knows, self.python),
            ("sigstore-js", self.node_knows, self.node),
        ]
        if self.pullgate:
            judges = [("pullgate verify", lambda case: case.form != BARE, self.verify),
                      ("pullgate verify-bundle", self.verify_bundle_knows, self.each(self.verify_bundle)),
                      *judges]
        return judges

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def each(self, command):
        """A judge that is a process for each case."""
        def answer(case):
            arguments, environment = command(case)
            code = self.run(arguments, environment).returncode
            return "good" if code == 0 else "bad" if code in (1, 10, 11, 12) else f"exit {code}"

        def answers(cases):
            with ThreadPoolExecutor(self.jobs) as pool:
                return dict(zip((c.name for c in cases), pool.map(answer, cases)))
        return answers

    def run(self, arguments, environment=(), stdin=None):
        known = {"PATH": os.environ["PATH"], "HOME": str(self.home), "TUF_ROOT": str(self.home),
                 "NO_COLOR": "1", **dict(environment)}
        return subprocess.run([str(a) for a in arguments], env=known, capture_output=True, input=stdin,
                              timeout=300, cwd=self.folder)

    # pullgate

    def verify(self, cases):
        answers = {}

        def batch(number, some):
            policy = self.file(f"policy{number}.yaml", "".join(
                f"---\n{json.dumps(self.policy(f'c{n}', case))}\n" for n, case in enumerate(some)))
            result = self.run([self.pullgate, "verify", "-p", policy, "--trusted-root", self.root,
                               "--unmatched", "deny", "-o", "json", *[c.image.reference for c in some]])
            try:
                images = json.loads(result.stdout)["images"]
            except (ValueError, KeyError):
                raise SystemExit(f"pullgate verify: {result.stderr.decode()}")
            return {case.name: {"allowed": "good", "denied": "bad"}.get(image["verdict"], image["verdict"])
                    for case, image in zip(some, images, strict=True)}

        batches = [cases[n:n + 50] for n in range(0, len(cases), 50)]
        with ThreadPoolExecutor(self.jobs) as pool:
            for found in pool.map(batch, range(len(batches)), batches):
                answers |= found
        return answers

    def policy(self, name, case):
        """A Kyverno policy that wants of this one image what its trust and form promise."""
        rekor = {"url": "https://rekor.example", "ignoreTlog": case.trust not in LOGGED}
        if case.trust in KEYS:
            entry = {"keys": {"publicKeys": case.key, "rekor": rekor, "ctlog": {"ignoreSCT": True}}}
        elif case.trust in CERTIFICATES:
            chain = {"intermediate-expired": "old-private-chain", "name-constraint": "constrained-chain"}.get(
                case.twist, "private-chain")
            ctlog = {"ignoreSCT": True}
            if case.trust == "cert-tsa":
                ctlog["tsaCertChain"] = self.pem["tsa-chain"].decode()
            entry = {"certificates": {"certChain": self.pem[chain].decode(), "rekor": rekor, "ctlog": ctlog}}
        else:
            entry = {"keyless": {"subject": case.subject, "issuer": ISSUER, "rekor": rekor}}
        if case.repository:
            entry["repository"] = case.repository
        attestors = [{"entries": [entry]}]
        wanted = {"attestors": attestors}
        if case.form in ATTESTATIONS:
            wanted = {"attestations": [{"type": PREDICATE, "attestors": attestors}]}
        return {
            "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": {"name": name},
            "spec": {"validationFailureAction": "Enforce", "background": False, "rules": [{
                "name": "corpus", "match": {"any": [{"resources": {"kinds": ["Pod"]}}]},
                "verifyImages": [{"imageReferences": [case.image.reference.split("@")[0] + "*"],
                                  **wanted}]}]},
        }

    @staticmethod
    def verify_bundle_knows(case):
        return case.form in BUNDLES + (BARE,) and case.trust in LOGGED and case.twist not in (
            "predicate-type", "one-of-two", *OF_THE_REGISTRY)

    def verify_bundle(self, case):
        arguments = [self.pullgate, "verify-bundle", "--bundle", self.bundle(case)]
        if case.trust in KEYS:
            arguments += ["--key", self.key(case)]
        else:
            arguments += ["--certificate-identity", case.subject, "--certificate-oidc-issuer", ISSUER]
        artifact = self.artifact(case) if case.form == BARE else case.image.digest
        return [*arguments, "--trusted-root", self.root, artifact], ()

    # cosign

    @staticmethod
    def cosign2_knows(case):
        return case.form in LEGACY

    def cosign2(self, case):
        return self.legacy("bin/cosign-2", case, ["--offline=true"])

    @staticmethod
    def cosign3_knows(case):
        return True

    def cosign3(self, case):
        if case.form in LEGACY:
            return self.legacy("bin/cosign-3", case, ["--new-bundle-format=false", "--offline=true"])
        root = self.private_root if case.trust in CERTIFICATES else self.root
        what = ["verify-blob", "--bundle", self.bundle(case)] if case.form == BARE else self.command(case)
        arguments = [self.tools / "bin/cosign-3", *what, "--trusted-root", root, *self.who(case)]
        if case.trust not in LOGGED:
            arguments.append("--insecure-ignore-tlog=true")
        arguments += self.hash(case) if case.trust in KEYS else []
        if case.trust in ("cert-tsa", "keyless-v2", "mock-tsa"):
            arguments.append("--use-signed-timestamps=true")
        artifact = self.artifact(case) if case.form == BARE else case.image.reference
        return [*arguments, artifact], self.elsewhere(case).items()

    def legacy(self, program, case, flags):
        pem = lambda name: self.folder / f"{name}.pem"
        mock = "mock-" if case.trust in MOCKED else ""
        environment = {"SIGSTORE_REKOR_PUBLIC_KEY": pem(mock + "rekor"),
                       "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE": pem(mock + "ct"), **self.elsewhere(case)}
        arguments = [self.tools / program, *self.command(case), *flags, *self.who(case)]
        if case.trust in CERTIFICATES:
            environment["SIGSTORE_ROOT_FILE"] = pem("private-all")
        elif case.trust in KEYLESS:
            environment["SIGSTORE_ROOT_FILE"] = pem(mock + "fulcio-all")
        if case.trust not in LOGGED:
            arguments.append("--insecure-ignore-tlog=true")
        if case.trust in ("cert-tsa", "keyless-tsa", "mock-tsa"):
            arguments += ["--timestamp-certificate-chain", pem(mock + "tsa-chain")]
        arguments += self.hash(case)
        if case.form == "oci11":
            environment["COSIGN_EXPERIMENTAL"] = "1"
            arguments.append("--experimental-oci11=true")
        return [*arguments, case.image.reference], {k: str(v) for k, v in environment.items()}

    @staticmethod
    def elsewhere(case):
        return {"COSIGN_REPOSITORY": case.repository} if case.repository else {}

    @staticmethod
    def hash(case):
        """For a key, cosign has to be told of a hash that is not SHA-256; of Ed25519 it knows."""
        hash_ = ALGORITHMS[case.algorithm][2]
        told = hash_ == "sha256" or case.algorithm.startswith("ed")
        return [] if told else [f"--signature-digest-algorithm={hash_}"]

    @staticmethod
    def command(case):
        return ["verify-attestation", "--type", PREDICATE] if case.form in ATTESTATIONS else ["verify"]

    def who(self, case):
        if case.trust in KEYS:
            return ["--key", self.key(case)]
        if case.trust in CERTIFICATES:
            return ["--certificate-identity", case.subject, "--certificate-oidc-issuer-regexp", ".*",
                    "--insecure-ignore-sct=true"]
        return ["--certificate-identity", case.subject, "--certificate-oidc-issuer", ISSUER]

    # Sigstore for Python, in this process

    @staticmethod
    def python_knows(case):
        return (case.form in BUNDLES + (BARE,) and case.trust in KEYLESS
                and case.twist not in OF_THE_STATEMENT)

    def python(self, cases):
        import logging

        from sigstore.errors import Error
        from sigstore.models import Bundle, TrustedRoot
        from sigstore.verify import Verifier
        from sigstore.verify.policy import Identity
        logging.disable(logging.CRITICAL)
        verifier = Verifier(trusted_root=TrustedRoot.from_file(str(self.root)))
        answers = {}
        for case in cases:
            policy = Identity(identity=case.subject, issuer=ISSUER)
            try:
                bundle = Bundle.from_json(case.bundle)
                if case.form == BARE:
                    verifier.verify_artifact(case.artifact, bundle, policy)
                else:
                    verifier.verify_dsse(bundle, policy)
                answers[case.name] = "good"
            except Error:
                answers[case.name] = "bad"
            except Exception:  # Refused, though not as its interface says.
                answers[case.name] = "bad"
        return answers

    # Sigstore for JavaScript

    @staticmethod
    def node_knows(case):
        # Without a proven time it does not look at a certificate's authority at all.
        return (case.form in BUNDLES + (BARE,) and case.trust != "cert"
                and case.twist not in OF_THE_STATEMENT)

    def node(self, cases):
        asked = []
        for case in cases:
            asked.append({
                "name": case.name, "bundle": str(self.bundle(case)),
                "artifact": str(self.artifact(case)) if case.form == BARE else None,
                "key": case.key if case.trust in KEYS else None,
                "root": str(self.private_root if case.trust in CERTIFICATES else self.root),
                "subject": case.subject, "issuer": ISSUER if case.trust in KEYLESS else None,
                "thresholds": {"tlogThreshold": int(case.trust in LOGGED),
                               "ctlogThreshold": int(case.trust in KEYLESS),
                               "timestampThreshold": int(case.trust not in KEYS)},
            })
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "judge.js")
        result = self.run(["node", script], {"NODE_PATH": self.tools / "verifiers/node/node_modules"}.items(),
                          json.dumps(asked).encode())
        assert result.returncode == 0, result.stderr.decode()
        return json.loads(result.stdout)

    # Files of a case

    def of_case(self, case, suffix, content):
        path = self.folder / (case.name.replace("/", "+") + suffix)
        if not path.exists():
            path.write_bytes(content)
        return path

    def bundle(self, case):
        return self.of_case(case, ".json", case.bundle)

    def artifact(self, case):
        return self.of_case(case, ".bin", case.artifact)

    def key(self, case):
        return self.of_case(case, ".pub", case.key.encode())
