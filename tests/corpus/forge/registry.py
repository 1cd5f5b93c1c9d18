"""Pushes images and what is attached to them, in every form that cosign has."""

import hashlib
import http.client
import json
import threading

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
ARTIFACT_SIGNATURE = "application/vnd.dev.cosign.artifact.sig.v1+json"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(media, data, **more):
    return {"mediaType": media, "digest": digest(data), "size": len(data), **more}


class Registry:
    """One registry on loopback; a connection a thread."""

    def __init__(self, host, referrers):
        self.host, self.referrers = host, referrers
        self.local = threading.local()

    def request(self, method, path, body=b"", media=None):
        for attempt in range(2):
            if not getattr(self.local, "connection", None):
                self.local.connection = http.client.HTTPConnection(self.host, timeout=30)
            try:
                self.local.connection.request(
                    method, path, body, {"Content-Type": media or "application/octet-stream"})
                response = self.local.connection.getresponse()
                content = response.read()
                return response.status, response.headers, content
            except (http.client.HTTPException, OSError):
                # The server closed an idle connection.
                self.local.connection = None
                if attempt:
                    raise

    def blob(self, repository, data):
        _, headers, _ = self.request("POST", f"/v2/{repository}/blobs/uploads/")
        location = headers["Location"]
        location = location[location.index("/v2/"):]
        location += ("&" if "?" in location else "?") + "digest=" + digest(data)
        status, _, content = self.request("PUT", location, data)
        assert status == 201, (status, content)

    def manifest(self, repository, reference, value):
        data = json.dumps(value, separators=(",", ":")).encode()
        status, _, content = self.request(
            "PUT", f"/v2/{repository}/manifests/{reference or digest(data)}", data, value["mediaType"])
        assert status == 201, (status, content)
        return data

    def image(self, repository, name):
        """An image of its own digest."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Labels": {"case": name}},
                             "rootfs": {"type": "layers", "diff_ids": []}}).encode()
        self.blob(repository, config)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, config),
                    "layers": []}
        return Image(self, repository, self.manifest(repository, "1", manifest))


    def index(self, repository, name):
        """An index of two images, and the first of these."""
        children = [self.image(repository, f"{name} on {system}") for system in ("linux", "windows")]
        index = {"schemaVersion": 2, "mediaType": INDEX,
                 "manifests": [descriptor(MANIFEST, child.manifest) for child in children]}
        return Image(self, repository, self.manifest(repository, "1", index), INDEX), children[0]


class Image:
    """A pushed image, or an index."""

    def __init__(self, registry, repository, manifest, media_type=MANIFEST):
        self.registry, self.repository, self.manifest = registry, repository, manifest
        self.media_type = media_type
        self.digest = digest(manifest)
        self.hex = self.digest.removeprefix("sha256:")

    def elsewhere(self, repository):
        """The same, as far as its signatures are concerned, in another repository."""
        return Image(self.registry, repository, self.manifest, self.media_type)

    @property
    def reference(self):
        return f"{self.registry.host}/{self.repository}@{self.digest}"

    def layers(self, suffix, layers):
        """`.sig` or `.att`: (media type, bytes, annotations) each."""
        self._layers(f"sha256-{self.hex}.{suffix}", layers, {})

    def artifact(self, layers):
        """The experimental OCI 1.1 form of `.sig`: a referrer without a tag."""
        self._layers(None, layers, {
            "artifactType": ARTIFACT_SIGNATURE, "subject": descriptor(self.media_type, self.manifest)},
            ARTIFACT_SIGNATURE)

    def _layers(self, reference, layers, more, config_type=CONFIG):
        config = json.dumps({"architecture": "", "os": "", "config": {}, "rootfs": {
            "type": "layers", "diff_ids": [digest(data) for _, data, _ in layers]}}).encode()
        for data in [config] + [data for _, data, _ in layers]:
            self.registry.blob(self.repository, data)
        self.registry.manifest(self.repository, reference, {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(config_type, config),
            "layers": [descriptor(media, data, annotations=annotations)
                       for media, data, annotations in layers],
            **more})

    def bundles(self, bundles):
        """Bundles as referrers, or below the fallback tag: (bytes, predicate type) each."""
        fallback = []
        for data, predicate in bundles:
            self.registry.blob(self.repository, data)
            self.registry.blob(self.repository, b"{}")
            annotations = {"org.opencontainers.image.created": "2026-01-01T00:00:00Z",
                           "dev.sigstore.bundle.content": "dsse-envelope",
                           "dev.sigstore.bundle.predicateType": predicate}
            pushed = self.registry.manifest(self.repository, None, {
                "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE,
                "config": descriptor(EMPTY, b"{}", artifactType=BUNDLE),
                "layers": [descriptor(BUNDLE, data)],
                "subject": descriptor(self.media_type, self.manifest), "annotations": annotations})
            # As cosign 3 writes it: the config's type and no annotations.
            fallback.append(descriptor(MANIFEST, pushed, artifactType=EMPTY))
        if not self.registry.referrers:
            self.registry.manifest(self.repository, f"sha256-{self.hex}", {
                "schemaVersion": 2, "mediaType": INDEX, "manifests": fallback})
