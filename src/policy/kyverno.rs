//! Kyverno's documents as they are written: every field of a `verifyImages` rule, typed.
//!
//! Field names are Kyverno's own; their meaning is in its reference (`kubectl explain
//! clusterpolicy.spec.rules.verifyImages`). Unknown fields are errors with line and column. Fields
//! that are known but not supported are read as [`Unread`] and refused by `load`, so that nothing a
//! policy says is ever ignored. Defaults are those that the CRD injects.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_saphyr::Spanned;

/// A field that is known and only looked at for being there.
pub(super) type Unread = Spanned<Value>;
type Map = BTreeMap<String, String>;

macro_rules! documents {
    ($($name:ident { $($field:ident: $type:ty = $yaml:literal,)* })*) => {
        $(
            #[derive(Debug, Clone, Default, Deserialize)]
            #[serde(deny_unknown_fields, default)]
            pub(super) struct $name { $(#[serde(rename = $yaml)] pub(super) $field: $type,)* }
        )*
        /// Every type above with its field names, for the test that adds a bogus one.
        #[cfg(test)]
        pub(super) const FIELDS: &[(&str, &[&str])] = &[$((stringify!($name), &[$($yaml,)*]),)*];
    };
}

documents! {
    Document {
        api_version: String = "apiVersion",
        kind: String = "kind",
        metadata: Option<Value> = "metadata",
        spec: Option<Spec> = "spec",
        status: Option<Value> = "status",
    }
    Spec {
        validation_failure_action: Option<String> = "validationFailureAction",
        validation_failure_action_overrides: Vec<ActionOverride> = "validationFailureActionOverrides",
        failure_policy: Option<String> = "failurePolicy",
        webhook_configuration: Option<WebhookConfiguration> = "webhookConfiguration",
        rules: Vec<Spanned<Rule>> = "rules",
        apply_rules: Option<Spanned<String>> = "applyRules",
        admission: Option<bool> = "admission",
        background: Option<Unread> = "background",
        webhook_timeout_seconds: Option<Unread> = "webhookTimeoutSeconds",
        emit_warning: Option<Unread> = "emitWarning",
        schema_validation: Option<Unread> = "schemaValidation",
        mutate_existing_on_policy_update: Option<Unread> = "mutateExistingOnPolicyUpdate",
        generate_existing_on_policy_update: Option<Unread> = "generateExistingOnPolicyUpdate",
        generate_existing: Option<Unread> = "generateExisting",
        use_server_side_apply: Option<Unread> = "useServerSideApply",
        skip_background_requests: Option<Unread> = "skipBackgroundRequests",
    }
    WebhookConfiguration {
        failure_policy: Option<String> = "failurePolicy",
        timeout_seconds: Option<Unread> = "timeoutSeconds",
        match_conditions: Option<Unread> = "matchConditions",
    }
    ActionOverride {
        action: Option<String> = "action",
        namespaces: Option<Vec<Spanned<String>>> = "namespaces",
        namespace_selector: Option<Unread> = "namespaceSelector",
    }
    Rule {
        name: String = "name",
        context: Vec<Spanned<ContextEntry>> = "context",
        report_properties: Option<Unread> = "reportProperties",
        match_resources: Option<MatchResources> = "match",
        exclude: Option<MatchResources> = "exclude",
        image_extractors: Option<Spanned<BTreeMap<String, Vec<Spanned<ImageExtractor>>>>> = "imageExtractors",
        preconditions: Option<Spanned<Conditions>> = "preconditions",
        cel_preconditions: Option<Unread> = "celPreconditions",
        mutate: Option<Unread> = "mutate",
        validate: Option<Unread> = "validate",
        generate: Option<Unread> = "generate",
        verify_images: Option<Vec<VerifyImages>> = "verifyImages",
        skip_background_requests: Option<Unread> = "skipBackgroundRequests",
    }
    ExceptionDocument {
        api_version: String = "apiVersion",
        kind: String = "kind",
        metadata: Option<Value> = "metadata",
        spec: Option<ExceptionSpec> = "spec",
    }
    ExceptionSpec {
        background: Option<Unread> = "background",
        match_resources: Option<MatchResources> = "match",
        conditions: Option<Spanned<Conditions>> = "conditions",
        exceptions: Vec<Spanned<ExceptedRules>> = "exceptions",
        pod_security: Option<Unread> = "podSecurity",
    }
    ExceptedRules {
        policy_name: String = "policyName",
        rule_names: Vec<String> = "ruleNames",
    }
    ImageExtractor {
        path: String = "path",
        value: String = "value",
        key: String = "key",
        name: String = "name",
        jmes_path: Option<Spanned<String>> = "jmesPath",
    }
    ConfigMapDocument {
        api_version: String = "apiVersion",
        kind: String = "kind",
        metadata: Option<Value> = "metadata",
        data: Map = "data",
        binary_data: Option<Unread> = "binaryData",
        immutable: Option<Unread> = "immutable",
    }
    ContextEntry {
        name: String = "name",
        config_map: Option<ConfigMapReference> = "configMap",
        api_call: Option<Unread> = "apiCall",
        image_registry: Option<Spanned<ImageRegistry>> = "imageRegistry",
        variable: Option<Spanned<ContextVariable>> = "variable",
        global_reference: Option<Unread> = "globalReference",
    }
    ImageRegistry {
        reference: String = "reference",
        jmes_path: Option<Spanned<String>> = "jmesPath",
        image_registry_credentials: Option<RegistryCredentials> = "imageRegistryCredentials",
    }
    ConfigMapReference {
        name: String = "name",
        namespace: String = "namespace",
    }
    ContextVariable {
        value: Option<Unread> = "value",
        jmes_path: Option<Spanned<String>> = "jmesPath",
        default: Option<Unread> = "default",
    }
    MatchResources {
        any: Option<Vec<Filter>> = "any",
        all: Option<Vec<Filter>> = "all",
        resources: Option<Resources> = "resources",
        roles: Option<Unread> = "roles",
        cluster_roles: Option<Unread> = "clusterRoles",
        subjects: Option<Unread> = "subjects",
    }
    Filter {
        resources: Option<Resources> = "resources",
        roles: Option<Unread> = "roles",
        cluster_roles: Option<Unread> = "clusterRoles",
        subjects: Option<Unread> = "subjects",
    }
    Resources {
        kinds: Vec<String> = "kinds",
        name: Option<String> = "name",
        names: Vec<String> = "names",
        namespaces: Vec<Spanned<String>> = "namespaces",
        annotations: Map = "annotations",
        selector: Option<Selector> = "selector",
        namespace_selector: Option<Unread> = "namespaceSelector",
        operations: Vec<String> = "operations",
    }
    Selector {
        match_labels: Map = "matchLabels",
        match_expressions: Vec<Expression> = "matchExpressions",
    }
    Expression {
        key: String = "key",
        operator: Option<Spanned<String>> = "operator",
        values: Vec<String> = "values",
    }
    VerifyImages {
        image_references: Vec<Spanned<String>> = "imageReferences",
        skip_image_references: Vec<String> = "skipImageReferences",
        kind: Option<Spanned<String>> = "type",
        attestors: Vec<AttestorSet> = "attestors",
        attestations: Option<Spanned<Vec<Spanned<Attestation>>>> = "attestations",
        failure_action: Option<String> = "failureAction",
        repository: Option<Spanned<String>> = "repository",
        cosign_oci11: Option<Spanned<bool>> = "cosignOCI11",
        mutate_digest: Option<Spanned<bool>> = "mutateDigest",
        verify_digest: Option<bool> = "verifyDigest",
        required: Option<bool> = "required",
        use_cache: Option<Unread> = "useCache",
        image_registry_credentials: Option<RegistryCredentials> = "imageRegistryCredentials",
        validate: Option<Spanned<ImageValidation>> = "validate",
        image: Option<String> = "image",
        key: Option<Spanned<String>> = "key",
        issuer: Option<Spanned<String>> = "issuer",
        subject: Option<Spanned<String>> = "subject",
        roots: Option<Spanned<String>> = "roots",
        annotations: Map = "annotations",
        additional_extensions: Option<Spanned<Map>> = "additionalExtensions",
    }
    RegistryCredentials {
        allow_insecure_registry: Option<Spanned<bool>> = "allowInsecureRegistry",
        providers: Option<Spanned<Vec<String>>> = "providers",
        secrets: Option<Spanned<Vec<String>>> = "secrets",
    }
    Attestation {
        kind: Option<Spanned<String>> = "type",
        predicate_type: Option<Spanned<String>> = "predicateType",
        name: Option<Spanned<String>> = "name",
        attestors: Vec<AttestorSet> = "attestors",
        conditions: Option<Vec<Spanned<Block>>> = "conditions",
    }
    ImageValidation {
        message: Option<Spanned<String>> = "message",
        deny: Option<Spanned<Deny>> = "deny",
    }
    Deny {
        conditions: Option<Spanned<Conditions>> = "conditions",
    }
    Block {
        any: Option<Vec<Spanned<Condition>>> = "any",
        all: Option<Vec<Spanned<Condition>>> = "all",
    }
    Condition {
        key: Option<Spanned<Value>> = "key",
        operator: Option<Spanned<String>> = "operator",
        value: Option<Spanned<Value>> = "value",
        message: Option<Spanned<String>> = "message",
    }
    AttestorSet {
        count: Option<Spanned<i64>> = "count",
        entries: Option<Spanned<Vec<Attestor>>> = "entries",
    }
    Attestor {
        keys: Option<Spanned<Keys>> = "keys",
        certificates: Option<Spanned<Certificates>> = "certificates",
        keyless: Option<Spanned<Keyless>> = "keyless",
        attestor: Option<Box<AttestorSet>> = "attestor",
        annotations: Option<Spanned<Map>> = "annotations",
        repository: Option<Spanned<String>> = "repository",
        signature_algorithm: Option<Spanned<String>> = "signatureAlgorithm",
    }
    Keys {
        public_keys: Option<Spanned<String>> = "publicKeys",
        signature_algorithm: Option<Spanned<String>> = "signatureAlgorithm",
        kms: Option<Unread> = "kms",
        secret: Option<Unread> = "secret",
        rekor: Option<Spanned<Rekor>> = "rekor",
        ctlog: Option<CtLog> = "ctlog",
    }
    Certificates {
        cert: Option<Spanned<String>> = "cert",
        cert_chain: Option<Spanned<String>> = "certChain",
        rekor: Option<Spanned<Rekor>> = "rekor",
        ctlog: Option<CtLog> = "ctlog",
    }
    Keyless {
        issuer: Option<Spanned<String>> = "issuer",
        subject: Option<Spanned<String>> = "subject",
        issuer_regexp: Option<Spanned<String>> = "issuerRegExp",
        subject_regexp: Option<Spanned<String>> = "subjectRegExp",
        roots: Option<Spanned<String>> = "roots",
        additional_extensions: Option<Spanned<Map>> = "additionalExtensions",
        rekor: Option<Spanned<Rekor>> = "rekor",
        ctlog: Option<CtLog> = "ctlog",
    }
    Rekor {
        url: Option<Spanned<String>> = "url",
        pubkey: Option<Spanned<String>> = "pubkey",
        pub_key: Option<Spanned<String>> = "pubKey",
        ignore_tlog: Option<Spanned<bool>> = "ignoreTlog",
    }
    CtLog {
        ignore_sct: Option<Spanned<bool>> = "ignoreSCT",
        pubkey: Option<Spanned<String>> = "pubkey",
        pub_key: Option<Spanned<String>> = "pubKey",
        tsa_cert_chain: Option<Spanned<String>> = "tsaCertChain",
    }
}

/// Conditions outside of attestations.
#[derive(Debug, Clone)]
pub(super) enum Conditions {
    /// `any` and `all`.
    Block(Block),
    /// The old form: a list, all of which must hold.
    List(Vec<Spanned<Condition>>),
}

impl<'de> Deserialize<'de> for Conditions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Conditions;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("`any` and `all`, or a list of conditions")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Conditions, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(Conditions::Block)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Conditions, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(Conditions::List)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
