//! What each command takes.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::trust::Mirror;

/// Verifies every container image at pull time, between the kubelet and containerd.
#[derive(Debug, Parser)]
#[command(
    name = "pullgate",
    version,
    propagate_version = true,
    after_help = "\
Exit codes: 0 yes or done, 1 a definite no, 2 usage, config or policy error, 3 could not find out.\n\
First steps: `pullgate check` shows what the config and the policies say, `pullgate verify IMAGE` what \
they mean for one image, `mode: audit` in the config reports without refusing."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon (normally started by systemd)
    Serve(Serve),
    /// Judge images as a pull would, without containerd
    Verify(Box<Verify>),
    /// Judge the images that Kubernetes resources name, and fill their digests in
    Apply(Box<Apply>),
    /// Validate the config and the policies, and say what they refuse and report
    Check(Check),
    /// Verify one Sigstore bundle against one artifact
    VerifyBundle(VerifyBundle),
    /// Show what the running daemon does
    Status(Status),
    /// Make the running daemon read config and policies again; the old ones stay if that fails
    Reload(Reload),
    /// Look at or tend the cache of verified digests
    Cache(Cache),
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the man page (roff)
    Man,
}

/// Text for people or JSON for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs; carries a schemaVersion
    Json,
}

/// `serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// The config file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// `verify`
#[derive(Debug, Args)]
#[command(after_help = "Example: pullgate verify -p policies/ registry.example/app:v1 --explain")]
pub struct Verify {
    /// Image references
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// What the images are judged by
    #[command(flatten)]
    pub basis: Basis,
    /// Judge as if pulled for a pod in this namespace
    #[arg(long, value_name = "NS", value_parser = namespace)]
    pub namespace: Option<String>,
    /// A label of that pod (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub pod_label: Vec<(String, String)>,
    /// Output form
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
    /// Print the whole tree of each decision
    #[arg(long)]
    pub explain: bool,
}

/// `apply`
#[derive(Debug, Args)]
#[command(after_help = "\
Images are judged as a pull of them would be. They are found in pods and in what makes pods (Deployment, \
StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob), and in other kinds where a rule's \
imageExtractors say.\n\
Results: pass; fail: an Enforce rule refuses; warn: it lets pass what does not hold (Audit); error: could not \
find out; skip.\n\
With -o yaml the documents come out with the verified digests filled in where mutateDigest asks for it, and \
results go to stderr. A document in which anything was refused is left out.\n\
Exit codes: 1 something is denied, 3 could not find out, 0 everything passes; 2 usage, policy or resource error.\n\
Examples:\n\
  pullgate apply -p policies/ -r deployment.yaml\n\
  kustomize build . | pullgate apply -p policies/ -r - -o yaml | kubectl apply -f -")]
pub struct Apply {
    /// A file or folder of resources, or - for standard input (repeatable)
    #[arg(short, long, required = true, value_name = "FILE")]
    pub resource: Vec<PathBuf>,
    /// Where resources go that name no namespace
    #[arg(long, value_name = "NS", default_value = "default", value_parser = namespace)]
    pub namespace: String,
    /// What the images are judged by
    #[command(flatten)]
    pub basis: Basis,
    /// Output form
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: ResourceOutput,
}

/// Results, or resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ResourceOutput {
    /// Results for people
    Text,
    /// Results for programs, with a JSON patch a resource; carries a schemaVersion
    Json,
    /// The resources with digests filled in
    Yaml,
}

/// What images are judged by: `verify` and `apply` take the same.
#[derive(Debug, Args)]
pub struct Basis {
    /// A policy file or folder; without it the config's policies apply (repeatable)
    #[arg(short, long, value_name = "FILE")]
    pub policy: Vec<PathBuf>,
    /// The config file; with --policy it is read only where it is named
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A folder with docker's config.json, for registry credentials
    #[arg(long, value_name = "DIR")]
    pub docker_config: Option<PathBuf>,
    /// What to say of an image that no rule covers
    #[arg(long, value_name = "ACTION")]
    pub unmatched: Option<UnmatchedArgument>,
    /// A trusted_root.json instead of the config's trust root
    #[arg(long, value_name = "FILE", conflicts_with = "tuf_mirror")]
    pub trusted_root: Option<PathBuf>,
    /// A TUF repository instead of the config's trust root; needs --tuf-root
    #[arg(long, value_name = "URL", requires = "tuf_root", value_parser = Mirror::parse)]
    pub tuf_mirror: Option<Mirror>,
    /// The root.json that trust in that repository begins with
    #[arg(long, value_name = "FILE", requires = "tuf_mirror")]
    pub tuf_root: Option<PathBuf>,
    /// Speak plain HTTP with the registries of these images (loopback needs no word)
    #[arg(long)]
    pub plain_http: bool,
    /// Exit with 1 also where only an Audit rule fails
    #[arg(long)]
    pub fail_on_audit: bool,
}

impl Basis {
    /// What the config at `path` says, and nothing else.
    #[must_use]
    pub fn of_config(path: &Path) -> Self {
        Self {
            policy: Vec::new(),
            config: Some(path.to_owned()),
            docker_config: None,
            unmatched: None,
            trusted_root: None,
            tuf_mirror: None,
            tuf_root: None,
            plain_http: false,
            fail_on_audit: false,
        }
    }
}

/// What to do with an image that no rule covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UnmatchedArgument {
    /// Allowed
    Allow,
    /// Denied
    Deny,
}

/// `verify-bundle`
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 verified, 1 not verified, 2 usage or a file that cannot be read.\n\
Example: pullgate verify-bundle --bundle app.sigstore.json --key cosign.pub app.tar.gz")]
pub struct VerifyBundle {
    /// The bundle
    #[arg(long, value_name = "FILE")]
    pub bundle: PathBuf,
    /// Whom the certificate must name, exactly
    #[arg(
        long,
        value_name = "IDENTITY",
        requires = "certificate_oidc_issuer",
        required_unless_present = "key"
    )]
    pub certificate_identity: Option<String>,
    /// Who must have vouched for that identity, exactly
    #[arg(long, value_name = "URL", requires = "certificate_identity", required_unless_present = "key")]
    pub certificate_oidc_issuer: Option<String>,
    /// The public key that must have signed, as PEM
    #[arg(long, value_name = "FILE", conflicts_with_all = ["certificate_identity", "certificate_oidc_issuer"])]
    pub key: Option<PathBuf>,
    /// A trusted_root.json instead of the built-in root of the public instance
    #[arg(long, value_name = "FILE")]
    pub trusted_root: Option<PathBuf>,
    /// The built-in root of the staging instance; --trusted-root goes before it
    #[arg(long)]
    pub staging: bool,
    /// The artifact: a file, or sha256:… where no file has that name
    #[arg(value_name = "FILE_OR_DIGEST")]
    pub artifact: String,
}

/// `check`
#[derive(Debug, Args)]
pub struct Check {
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A policy file or folder (repeatable)
    #[arg(short, long, value_name = "FILE")]
    pub policy: Vec<PathBuf>,
    /// Warnings are errors too
    #[arg(long)]
    pub strict: bool,
}

/// `status`
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 all is well, 1 degraded, or with --would-deny an image would be denied, 3 no daemon answers, or with \
--would-deny not every image is decided.")]
pub struct Status {
    /// List the present images that policy would refuse, with rule and cause, and those that are not decided
    #[arg(long)]
    pub would_deny: bool,
    /// Output form
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
    /// The config, which names the daemon's control socket
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// `reload`
#[derive(Debug, Args)]
#[command(after_help = "\
Policies, approved digests and the trust root are loaded anew; other keys of the config count after a restart, and are \
named where they changed.\n\
Exit codes: 0 loaded, 1 audit mode is in force but the policies do not load, 2 config or policy error (the old ones stay), \
3 no daemon answers.")]
pub struct Reload {
    /// The config, which names the daemon's control socket
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// `cache`
#[derive(Debug, Args)]
pub struct Cache {
    /// What to do with it
    #[command(subcommand)]
    pub action: CacheAction,
}

/// What `cache` does.
#[derive(Debug, Subcommand)]
pub enum CacheAction {
    /// One line an image: digest, source, age
    ///
    /// The source is that of the admission; `evidence` and `imported` are images that were not pulled yet.
    List(CacheScope),
    /// What is kept of one image
    Show {
        /// The image, as repository@sha256:…
        image: String,
        /// Where to look
        #[command(flatten)]
        scope: CacheScope,
    },
    /// Forget what is kept; images are verified again when they are next asked for
    Purge {
        /// Only this repository, or repository@sha256:…
        image: Option<String>,
        /// Where to look
        #[command(flatten)]
        scope: CacheScope,
    },
    /// Write the evidence of verified images into a file, for other nodes
    Export(CacheExport),
    /// Verify the evidence in a file by this node's policies, and keep what holds
    Import(CacheImport),
    /// Verify images before anything pulls them
    Prewarm(CachePrewarm),
}

/// `cache export`
#[derive(Debug, Args)]
#[command(after_help = "\
The file has signatures, certificates, bundles and attestations as their registries gave them, and nothing that \
another node would have to believe: no verdict, no credential. Anybody who reads it learns which images this node has.\n\
Exit codes: 0 written, 2 usage, 3 the cache cannot be read or the file not be written.\n\
Example: pullgate cache export evidence.jsonl --image registry.example/app")]
pub struct CacheExport {
    /// The file; an older one is replaced when the new one is whole
    pub file: PathBuf,
    /// Only this repository, or repository@sha256:… (repeatable)
    #[arg(long, value_name = "IMAGE")]
    pub image: Vec<String>,
    /// Where to look
    #[command(flatten)]
    pub scope: CacheScope,
}

/// `cache import`
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing in the file is believed. Each image is verified anew, without network, by the policies and trust roots that \
are in force on this node; what does not verify is named and not kept. A file that is cut off or damaged is refused as \
a whole.\n\
What was imported serves while a registry does not answer, until cache.stale is over since it was fetched. While the \
registry answers, its word counts: a signature that was withdrawn there lets nothing pass here. Tags are not taken \
over: refer to images by digest, or let `cache prewarm` ask the registry.\n\
Exit codes: 0 everything verifies (or no policy asks for it), 1 something does not or is too old, 2 usage or not a file of \
ours, 3 could not find out, or no room.\n\
Example: pullgate cache import evidence.jsonl")]
pub struct CacheImport {
    /// A file of `pullgate cache export`
    pub file: PathBuf,
    /// Where to keep it
    #[command(flatten)]
    pub scope: CacheScope,
}

/// `cache prewarm`
#[derive(Debug, Args)]
#[command(after_help = "\
Images are verified as a pull would, by the registry and with the credentials of registry.dockerConfig, and what \
they rest on is kept: a later pull needs no look at signatures, also while the registry is away. Nothing is pulled, and \
nothing is admitted by it.\n\
Exit codes: 1 something is denied, 3 could not find out, 0 everything is allowed; 2 usage, config or policy error.\n\
Examples:\n\
  pullgate cache prewarm registry.example/app:v2\n\
  kubectl get pods -A -o jsonpath='{.items[*].spec.containers[*].image}' | tr ' ' '\\n' | sort -u | pullgate cache prewarm -")]
pub struct CachePrewarm {
    /// Image references; - reads them from standard input, one a line
    #[arg(value_name = "IMAGE", required_unless_present = "file")]
    pub images: Vec<String>,
    /// A file of them, one a line; empty lines and what follows a # are skipped
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Where to keep it
    #[command(flatten)]
    pub scope: CacheScope,
}

/// Where the cache is and how to print it.
#[derive(Debug, Args)]
pub struct CacheScope {
    /// The config, which names the control socket and the cache's folder
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Output form
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

/// What the API server takes for the name of a namespace (RFC 1123, a label).
fn namespace(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=63).contains(&text.len()) && text.bytes().all(inner);
    if fits && !text.starts_with('-') && !text.ends_with('-') {
        Ok(text.to_owned())
    } else {
        Err("a namespace is at most 63 of a-z, 0-9 and -, and neither begins nor ends with -".to_owned())
    }
}

/// Where the package puts the config.
pub(super) use crate::config::DEFAULT_PATH as DEFAULT_CONFIG;
