//! Kyverno policies with one `verifyImages` rule, as the tests need them.

use serde_json::{Value, json};

use super::cosign::Key;

/// A policy document in the making: a ClusterPolicy that asks one key and refuses.
#[derive(Clone)]
pub(crate) struct Policy {
    name: String,
    namespace: Option<String>,
    images: Vec<String>,
    action: &'static str,
    kind_of_signature: Option<&'static str>,
    count: Option<u32>,
    entries: Vec<Value>,
    attestations: Vec<Value>,
    repository: Option<String>,
}

impl Policy {
    /// A policy for images that match a pattern, with no attestor yet. Its one rule is `signed`.
    pub(crate) fn new(name: &str, pattern: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            namespace: None,
            images: vec![pattern.into()],
            action: "Enforce",
            kind_of_signature: None,
            count: None,
            entries: Vec::new(),
            attestations: Vec::new(),
            repository: None,
        }
    }

    /// An attestor: this key.
    pub(crate) fn key(self, key: &Key) -> Self {
        self.key_with(key, &json!({}))
    }

    /// An attestor: this key, with further fields of the entry, for example annotations.
    pub(crate) fn key_with(mut self, key: &Key, fields: &Value) -> Self {
        let mut entry = json!({"keys": {
            "publicKeys": key.public,
            "rekor": {"url": "https://rekor.invalid", "ignoreTlog": true},
            "ctlog": {"ignoreSCT": true},
        }});
        for (name, value) in fields.as_object().expect("an object") {
            entry[name] = value.clone();
        }
        self.entries.push(entry);
        self
    }

    /// An attestor: this entry as it is in the policy, for example `{"keyless": …}`.
    pub(crate) fn attestor(mut self, entry: Value) -> Self {
        self.entries.push(entry);
        self
    }

    /// An attestation of this predicate type by one attestor.
    pub(crate) fn attestation(mut self, predicate_type: &str, entry: &Value) -> Self {
        self.attestations.push(json!({"type": predicate_type, "attestors": [{"entries": [entry]}]}));
        self
    }

    /// How many of the attestors must hold; without it all.
    pub(crate) fn count(mut self, count: u32) -> Self {
        self.count = Some(count);
        self
    }

    /// Where the signatures are.
    pub(crate) fn repository(mut self, repository: &str) -> Self {
        self.repository = Some(repository.to_owned());
        self
    }

    /// Report only.
    pub(crate) fn audit(mut self) -> Self {
        self.action = "Audit";
        self
    }

    /// `type: SigstoreBundle`.
    pub(crate) fn bundles_only(mut self) -> Self {
        self.kind_of_signature = Some("SigstoreBundle");
        self
    }

    /// A namespaced Policy instead of a ClusterPolicy.
    pub(crate) fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// The document; JSON is YAML.
    pub(crate) fn document(&self) -> Value {
        let mut attestors = json!({"entries": self.entries});
        if let Some(count) = self.count {
            attestors["count"] = json!(count);
        }
        let mut verify = json!({"imageReferences": self.images});
        if !self.entries.is_empty() || self.attestations.is_empty() {
            verify["attestors"] = json!([attestors]);
        }
        if !self.attestations.is_empty() {
            verify["attestations"] = json!(self.attestations);
        }
        if self.action == "Audit" {
            verify["mutateDigest"] = json!(false);
        }
        if let Some(kind) = self.kind_of_signature {
            verify["type"] = json!(kind);
        }
        if let Some(repository) = &self.repository {
            verify["repository"] = json!(repository);
        }
        let mut metadata = json!({"name": self.name});
        if let Some(namespace) = &self.namespace {
            metadata["namespace"] = json!(namespace);
        }
        json!({
            "apiVersion": "kyverno.io/v1",
            "kind": if self.namespace.is_some() { "Policy" } else { "ClusterPolicy" },
            "metadata": metadata,
            "spec": {
                "validationFailureAction": self.action,
                "background": false,
                "rules": [{
                    "name": "signed",
                    "match": {"any": [{"resources": {"kinds": ["Pod"]}}]},
                    "verifyImages": [verify],
                }],
            },
        })
    }
}
