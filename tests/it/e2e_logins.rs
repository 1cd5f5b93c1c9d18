//! Registries that ask who comes, as they are: distribution 2.8 and 3 with passwords, and with a token
//! service. containerd pulls through the same doors.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::{Value, json};
use tonic::Status;

use crate::kit::{
    self, Node,
    cri::Pull,
    gate::{Gate, binary},
    image::Image,
    policy::Policy,
    ran::Ran,
    registry::{Auth, Guard, Kind, Registry},
    tokens::{ADA, BOB, HTPASSWD, TokenService, User},
};

kit::on_each_containerd!(
    token_is_asked_for_once_for_each_repository_and_credential,
    identity_token_is_exchanged_once,
    token_service_refuses_strangers_wrong_passwords_and_foreign_repositories,
    passwords_are_shown_to_a_registry_that_asks_for_them,
    docker_config_and_its_helpers_open_both_kinds_of_registry,
    prewarm_reads_with_the_credentials_of_the_docker_config,
);

/// A registry's content by two doors: an open one for the tests, and one that asks who comes.
struct Locked {
    open: Registry,
    door: Registry,
}

impl Locked {
    fn with_tokens(node: &Node, kind: Kind, tokens: &TokenService) -> Self {
        Self::new(node, kind, tokens.auth())
    }

    fn with_passwords(node: &Node, kind: Kind) -> Self {
        let file = kit::folder().join("htpasswd");
        fs::write(&file, HTPASSWD).expect("a file");
        Self::new(node, kind, Auth::Htpasswd(file))
    }

    fn new(node: &Node, kind: Kind, auth: Auth) -> Self {
        let open = Registry::of(kind);
        let door = open.guarded(Guard { auth: Some(auth), ..Guard::default() });
        node.containerd.knows(&door);
        Self { open, door }
    }

    /// Pushes an image, signs it as cosign 2 does, and names it by the door.
    fn signed(&self, node: &Node, repository: &str, tag: &str) -> Image {
        let image = self.open.image(repository).push(tag);
        node.key.sign(&image);
        self.by_door(&image, repository)
    }

    fn by_door(&self, image: &Image, repository: &str) -> Image {
        image.at(format!("{}/{repository}", self.door.host()))
    }

    fn policy(&self, node: &Node) -> Policy {
        Policy::new("keyed", format!("{}/*", self.door.host())).key(node.key)
    }

    fn gate(&self, node: &Node) -> Gate {
        Gate::start(&node.containerd, &[self.policy(node)])
    }
}

fn pull(gate: &Gate, image: &Image, (user, password): User) -> Result<String, Status> {
    gate.cri().pull(image.by_tag()).credentials(user, password).send()
}

fn token_is_asked_for_once_for_each_repository_and_credential(node: &Node) {
    for kind in Kind::all() {
        let tokens = TokenService::start();
        let locked = Locked::with_tokens(node, kind, &tokens);
        let first = locked.signed(node, "ada/first", "1");
        let second = locked.open.image("ada/second").push("1");
        node.key.sign_bundle(&second);
        let second = locked.by_door(&second, "ada/second");
        let gate = locked.gate(node);

        assert_eq!(pull(&gate, &first, ADA).expect("a pull"), first.id, "{kind:?}");
        assert_eq!(node.containerd.record(&first.by_tag()), Some(first.digest.clone()), "{kind:?}");
        assert_eq!(tokens.asked_by_pullgate(), [Method::GET], "{kind:?}");
        // Everything is verified anew, with the token that is there.
        gate.purge_cache();
        assert_eq!(pull(&gate, &first, ADA).expect("a pull"), first.id, "{kind:?}");
        assert_eq!(tokens.asked_by_pullgate().len(), 1, "{kind:?}: the token was kept");
        assert_eq!(pull(&gate, &second, ADA).expect("a pull"), second.id, "{kind:?}");
        assert_eq!(tokens.asked_by_pullgate().len(), 2, "{kind:?}: another repository");
        // Another's credentials get another token, which opens nothing.
        pull(&gate, &first, BOB).expect_err("it is ada's");
        assert_eq!(tokens.asked_by_pullgate().len(), 3, "{kind:?}: other credentials");
        gate.purge_cache();
        assert_eq!(pull(&gate, &first, ADA).expect("a pull"), first.id, "{kind:?}");
        assert_eq!(tokens.asked_by_pullgate().len(), 3, "{kind:?}: nobody's token replaced another's");

        // Many at once of one repository.
        let tags: Vec<Image> = (0..6).map(|tag| locked.signed(node, "ada/many", &tag.to_string())).collect();
        let pulls = tags.iter().map(|image| gate.cri().pull(image.by_tag()).credentials(ADA.0, ADA.1).sent());
        for answer in kit::block_on(futures_util::future::join_all(pulls)) {
            answer.expect("a pull");
        }
        assert_eq!(tokens.asked_by_pullgate().len(), 4, "{kind:?}: one for all who wait");

        // Tokens are in memory alone.
        gate.restart();
        gate.purge_cache();
        assert_eq!(pull(&gate, &first, ADA).expect("a pull"), first.id, "{kind:?}");
        assert_eq!(tokens.asked_by_pullgate(), [const { Method::GET }; 5], "{kind:?}");
        assert!(tokens.asked_by_containerd().contains(&Method::POST), "{kind:?}: containerd posts");
    }
}

fn identity_token_is_exchanged_once(node: &Node) {
    for kind in Kind::all() {
        let tokens = TokenService::start();
        let locked = Locked::with_tokens(node, kind, &tokens);
        let image = locked.signed(node, "ada/app", "1");
        let gate = locked.gate(node);
        let [ada, bob] = [ADA, BOB].map(|user| tokens.offline_token(user));
        let pull = |token: &str| gate.cri().pull(image.by_tag()).identity_token(token).send();

        for _ in 0..2 {
            assert_eq!(pull(&ada).expect("a pull"), image.id, "{kind:?}");
            assert_eq!(tokens.asked_by_pullgate(), [Method::POST], "{kind:?}");
            gate.purge_cache();
        }
        let said = [bob.as_str(), "nobody-gave-this"].map(|token| words(pull(token), &image));
        assert_eq!(said, ["registry answered 401", "token service answered 401"], "{kind:?}");
        assert_eq!(tokens.asked_by_pullgate(), [const { Method::POST }; 3], "{kind:?}");
    }
}

fn token_service_refuses_strangers_wrong_passwords_and_foreign_repositories(node: &Node) {
    for kind in Kind::all() {
        let tokens = TokenService::start();
        let locked = Locked::with_tokens(node, kind, &tokens);
        let image = locked.signed(node, "ada/app", "1");
        let gate = locked.gate(node);
        let said = [Some(("ada", "two")), Some(BOB), None].map(|user| {
            of(node.containerd.cri().pull(image.by_tag()), user).expect_refusal();
            words(of(gate.cri().pull(image.by_tag()), user).send(), &image)
        });
        let expected = ["token service answered 401", "registry answered 401", "token service answered 401"];
        assert_eq!(said, expected, "{kind:?}");
        // Not to be tried more often than somebody asks for it.
        assert_eq!(tokens.asked_by_pullgate(), [Method::GET, Method::GET], "{kind:?}");
        // By digest, several things are asked for at once.
        let by_digest = of(gate.cri().pull(image.by_digest()), Some(("ada", "two"))).expect_refusal();
        let name = image.by_digest();
        let message = format!("{name}: signatures of {name}: {}", expected[0]);
        assert_eq!(by_digest.message(), message, "{kind:?}");
        let tries = tokens.asked_by_pullgate().len() - 2;
        assert!((1..=3).contains(&tries), "{kind:?}: {tries}, and not one for each");
        assert_eq!(node.containerd.record(&image.by_tag()), None, "{kind:?}");
    }
}

fn passwords_are_shown_to_a_registry_that_asks_for_them(node: &Node) {
    for kind in Kind::all() {
        let locked = Locked::with_passwords(node, kind);
        let image = locked.signed(node, "app", "1");
        let unsigned = locked.open.image("app").push("2");
        let unsigned = locked.by_door(&unsigned, "app");
        let gate = locked.gate(node);
        let said = [Some(("ada", "two")), Some(("eve", "one")), None].map(|user| {
            of(node.containerd.cri().pull(image.by_tag()), user).expect_refusal();
            words(of(gate.cri().pull(image.by_tag()), user).send(), &image)
        });
        assert_eq!(said, ["registry answered 401"; 3], "{kind:?}");
        for user in [ADA, BOB] {
            assert_eq!(pull(&gate, &image, user).expect("a pull"), image.id, "{kind:?} {user:?}");
        }
        assert_eq!(node.containerd.record(&image.by_tag()), Some(image.digest.clone()), "{kind:?}");
        let refusal = pull(&gate, &unsigned, ADA).expect_err("it is unsigned");
        assert!(refusal.message().starts_with("SignatureValidationFailed"), "{kind:?}: {refusal}");
    }
}

/// A folder with docker's `config.json`.
fn docker_config(config: &Value) -> PathBuf {
    let folder = kit::folder();
    fs::write(folder.join("config.json"), config.to_string()).expect("a file");
    folder
}

fn auth_of(registry: &Registry, (user, password): User) -> Value {
    json!({"auths": {registry.host(): {"auth": STANDARD.encode(format!("{user}:{password}"))}}})
}

fn docker_config_and_its_helpers_open_both_kinds_of_registry(node: &Node) {
    for kind in Kind::all() {
        let tokens = TokenService::start();
        let by_token = Locked::with_tokens(node, kind, &tokens);
        let by_password = Locked::with_passwords(node, kind);
        let programs = kit::folder();
        let helper = |name: &str, user: &str, secret: &str| {
            let file = programs.join(format!("docker-credential-{name}"));
            let answer = json!({"Username": user, "Secret": secret});
            fs::write(&file, format!("#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")).expect("a program");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("our own file");
        };
        helper("password", ADA.0, ADA.1);
        helper("token", "<token>", &tokens.offline_token(ADA));
        for (locked, door, opens) in
            [(&by_token, "token service", [true; 4]), (&by_password, "password", [true, true, false, false])]
        {
            let image = locked.signed(node, "ada/app", "1");
            let host = locked.door.host();
            let policy = kit::folder().join("policy.yaml");
            fs::write(&policy, locked.policy(node).document().to_string()).expect("a file");
            let configs = [
                auth_of(&locked.door, ADA),
                json!({"credHelpers": {host: "password"}}),
                json!({"credHelpers": {host: "token"}}),
                json!({"auths": {host: {"identitytoken": tokens.offline_token(ADA)}}}),
            ];
            for (config, opens) in configs.iter().zip(opens) {
                let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a PATH"));
                let mut command = Command::new(binary());
                command.args(["verify", "-p"]).arg(&policy).arg("--docker-config").arg(docker_config(config));
                let ran = Ran::of(command.arg(image.by_tag()).env("PATH", path));
                let code = if opens { 0 } else { 3 };
                assert_eq!(ran.code, code, "{kind:?}, {door}, {config}: {ran:?}");
            }
        }
    }
}

fn prewarm_reads_with_the_credentials_of_the_docker_config(node: &Node) {
    for kind in Kind::all() {
        let tokens = TokenService::start();
        for (locked, who) in [
            (Locked::with_passwords(node, kind), "registry"),
            (Locked::with_tokens(node, kind, &tokens), "token service"),
        ] {
            let image = locked.signed(node, "ada/app", "1");
            let unsigned = locked.open.image("ada/app").push("2");
            let unsigned = locked.by_door(&unsigned, "ada/app");
            let file = docker_config(&auth_of(&locked.door, ("ada", "wrong"))).join("config.json");
            let gate = Gate::before(&node.containerd)
                .policies(&[locked.policy(node)])
                .set("/registry/dockerConfig", json!([file]))
                .start();
            let prewarm = |image: &Image| Ran::from(gate.command(&["cache", "prewarm", &image.by_tag()]));
            let ran = prewarm(&image);
            let undecided = format!("{}: undecided: {who} answered 401", image.by_tag());
            assert_eq!(ran.lines(), [undecided], "{kind:?}");
            assert_eq!(ran.code, 3, "{kind:?} {who}");

            let config = auth_of(&locked.door, ADA).to_string();
            fs::write(&file, config).expect("a file");
            gate.restart();
            let ran = prewarm(&image);
            let allowed = format!("{}: allowed (verified) {}", image.by_tag(), image.digest);
            assert_eq!((ran.lines(), ran.code), (vec![allowed.as_str()], 0), "{kind:?} {who}");
            let ran = prewarm(&unsigned);
            assert_eq!(ran.code, 1, "{kind:?} {who}");
            assert!(
                ran.stdout.contains("denied: keyed/signed: signature not found"),
                "{kind:?} {who}: {ran:?}"
            );
        }
    }
}

fn of(pull: Pull, user: Option<User>) -> Pull {
    match user {
        Some((name, password)) => pull.credentials(name, password),
        None => pull,
    }
}

/// What a refusal says of an image.
fn words(pulled: Result<String, Status>, image: &Image) -> String {
    let refusal = pulled.expect_err("it is refused");
    refusal.message().strip_prefix(&format!("{}: ", image.by_tag())).unwrap_or(refusal.message()).to_owned()
}
