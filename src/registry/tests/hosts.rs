//! `hosts.toml`, as text.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ::http::HeaderMap;

use crate::registry::hosts::{
    Access, Address, Capabilities, ClientPair, HostEntry, HostsFile, Problem, Remark, SyntaxError,
};
use crate::registry::http::Scheme;

fn parse(text: &str) -> Result<HostsFile, SyntaxError> {
    HostsFile::parse(text.as_bytes(), Path::new("/certs.d/a.io"))
}

/// Hosts of a text about which nothing is to be said.
fn hosts(text: &str) -> Vec<HostEntry> {
    let file = parse(text).unwrap();
    assert_eq!(file.remarks, [], "{text}");
    file.hosts
}

fn addresses(text: &str) -> Vec<String> {
    let address = |host: HostEntry| {
        host.address.map_or_else(
            || "registry".to_owned(),
            |Address { scheme, authority, base, .. }| format!("{}://{authority}{base}", scheme.name()),
        )
    };
    parse(text).unwrap().hosts.into_iter().map(address).collect()
}

/// What the keys of one host give.
fn access(keys: &str) -> Access {
    hosts(&format!("[host.'https://m']\n{keys}\n")).swap_remove(0).access
}

fn remarks(text: &str) -> Vec<(usize, String)> {
    parse(text).unwrap().remarks.into_iter().map(|Remark { line, message }| (line, message)).collect()
}

/// containerd asks an http address by TLS where something is said of TLS, unless it names port 80.
#[test]
fn a_port_80_that_is_named_is_known() {
    let named = |text: &str| {
        let host = hosts(&format!("[host.'{text}']\n")).swap_remove(0);
        host.address.is_some_and(|address| address.names_port_80)
    };
    for text in ["http://m:80", "http://m:80/v2", "http://[::1]:80"] {
        assert!(named(text), "{text}");
    }
    for text in ["http://m", "http://m:8080", "http://m/a:80", "http://m:5000/x:80/"] {
        assert!(!named(text), "{text}");
    }
}

#[test]
fn reads_a_whole_file_in_its_order() {
    let text = r#"
server = "https://registry-1.docker.io"
capabilities = ["resolve"]

[host."https://z.mirror"]
  capabilities = ["pull"]
  skip_verify = false

[host."http://a.mirror:5000"]
  ca = "a.crt"
  [host."http://a.mirror:5000".header]
    x-one = "1"
    x-two = ["2", "3"]

[host."m.mirror/path/v2/"]
  capabilities = ["Pull", "RESOLVE", "push", "referrers"]
  client = [["c.cert", "/etc/c.key"]]
  dial_timeout = "1.5s"
"#;
    let address = |scheme, authority: &str, base: &str| {
        Some(Address { scheme, authority: authority.into(), base: base.into(), names_port_80: false })
    };
    let capabilities = |pull, resolve| Capabilities { pull, resolve };
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-one", "1"), ("x-two", "2"), ("x-two", "3")] {
        headers.append(name, value.parse().unwrap());
    }
    let folder = Path::new("/certs.d/a.io");
    let expected = [
        HostEntry {
            address: address(Scheme::Https, "z.mirror", "/v2"),
            capabilities: capabilities(true, false),
            access: Access { skip_verify: Some(false), ..Access::default() },
        },
        HostEntry {
            address: address(Scheme::Http, "a.mirror:5000", "/v2"),
            capabilities: capabilities(true, true),
            access: Access { ca: vec![folder.join("a.crt")], headers, ..Access::default() },
        },
        HostEntry {
            address: address(Scheme::Https, "m.mirror", "/path/v2"),
            capabilities: capabilities(true, true),
            access: Access {
                client: vec![ClientPair {
                    certificate: folder.join("c.cert"),
                    key: Some(PathBuf::from("/etc/c.key")),
                }],
                dial_timeout: Some(Duration::from_millis(1500)),
                ..Access::default()
            },
        },
        HostEntry {
            address: address(Scheme::Https, "registry-1.docker.io", "/v2"),
            capabilities: capabilities(false, true),
            access: Access::default(),
        },
    ];
    assert_eq!(hosts(text), expected);
}

#[test]
fn without_a_server_the_registry_itself_comes_last_with_every_capability() {
    for text in [
        "capabilities = ['pull']\nskip_verify = true\n",
        "server = ''\ncapabilities = ['resolve']\nskip_verify = true\n",
        "# a comment\nskip_verify = true",
    ] {
        let access = Access { skip_verify: Some(true), ..Access::default() };
        assert_eq!(hosts(text), [HostEntry::registry(access)], "{text}");
    }
    assert_eq!(hosts("# nothing\n"), [HostEntry::registry(Access::default())]);
}

#[test]
fn hosts_come_in_the_order_of_their_first_table() {
    let text = "[host.'https://b']\n[host.'https://c'.header]\nx = 'y'\n[host.'https://a']\n[host.'https://b'.header]\nx = 'y'\n";
    assert_eq!(addresses(text), ["https://b/v2", "https://c/v2", "https://a/v2", "registry"]);
}

#[test]
fn an_address_has_its_path_and_v2() {
    let table = [
        ("https://m", false, "https://m/v2"),
        ("https://m/", false, "https://m/v2"),
        ("m:5000", false, "https://m:5000/v2"),
        ("https://m:443", false, "https://m/v2"),
        ("http://m:80", false, "http://m/v2"),
        ("http://[::1]:5000", false, "http://[::1]:5000/v2"),
        ("https://m/v2", false, "https://m/v2"),
        ("https://m/a//b/", false, "https://m/a/b/v2"),
        ("https://m/a/../../b", false, "https://m/b/v2"),
        ("https://m/a", true, "https://m/a"),
        ("https://m", true, "https://m"),
        ("https://M.Example", true, "https://m.example"),
    ];
    for (host, whole, expected) in table {
        let text = format!("[host.'{host}']\noverride_path = {whole}\n");
        assert_eq!(addresses(&text), [expected, "registry"], "{host}");
        let text = format!("server = '{host}'\noverride_path = {whole}\n");
        assert_eq!(addresses(&text), [expected], "{host}");
    }
}

#[test]
fn certificates_are_paths_in_every_form() {
    let ca = |keys: &str| access(keys).ca;
    assert_eq!(ca("ca = 'x/a.crt'"), [PathBuf::from("/certs.d/a.io/x/a.crt")]);
    assert_eq!(ca("ca = ['/a', 'b']"), [PathBuf::from("/a"), PathBuf::from("/certs.d/a.io/b")]);
    let single = |path: &str| ClientPair { certificate: path.into(), key: None };
    let pair = ClientPair { certificate: "/c".into(), key: Some("/k".into()) };
    assert_eq!(access("client = '/c'").client, [single("/c")]);
    assert_eq!(access("client = ['/c']").client, [single("/c")]);
    assert_eq!(access("client = [['/c', '']]").client, [single("/c")]);
    assert_eq!(access("client = [['/c', '/k']]").client, std::slice::from_ref(&pair));
    assert_eq!(access("client = [['/c', '/k'], '/d']").client, [pair, single("/d")]);
}

#[test]
fn keys_are_taken_in_any_case_as_containerd_takes_them() {
    let file = hosts("[host.'https://m']\nCapabilities = ['pull']\nSKIP_VERIFY = true\n");
    assert_eq!(file[0].capabilities, Capabilities { pull: true, resolve: false });
    assert_eq!(file[0].access.skip_verify, Some(true));
    assert_eq!(addresses("Server = 'https://s'"), ["https://s/v2"]);
}

#[test]
fn durations_are_gos() {
    let table = [
        ("5s", Some(5_000_000_000)),
        ("+1h1m1s", Some(3_661_000_000_000)),
        ("1.25ms", Some(1_250_000)),
        (".5s", Some(500_000_000)),
        ("1.s", Some(1_000_000_000)),
        ("3us4\u{b5}s5\u{3bc}s6ns", Some(12_006)),
        ("0", Some(0)),
        ("5", None),
        ("-5s", None),
        ("s", None),
        (".s", None),
        ("1d", None),
        ("1s ", None),
        ("1.2.3s", None),
        ("99999999999999999999h", None),
        ("+", None),
    ];
    for (text, nanos) in table {
        let read = parse(&format!("dial_timeout = '{text}'"));
        match nanos {
            Some(nanos) => {
                assert_eq!(
                    read.unwrap().hosts[0].access.dial_timeout,
                    Some(Duration::from_nanos(nanos)),
                    "{text}"
                );
            }
            None => assert_eq!(read, Err(SyntaxError { line: 1, problem: Problem::Duration }), "{text}"),
        }
    }
    assert_eq!(access("dial_timeout = ''").dial_timeout, None);
}

#[test]
fn what_has_no_effect_is_named_with_its_line() {
    let text =
        "credentials = 'x'\n\n[host.'https://u:secret@m/v2?q#f']\nmirror = 1\n[host.'https://m'.host.x]\n";
    let said = [
        (1, "unknown key `credentials`"),
        (4, "unknown key `mirror` of a host"),
        (3, "user, query and fragment of an address are not used"),
        (5, "unknown key `host` of a host"),
    ];
    assert_eq!(remarks(text), said.map(|(line, message)| (line, message.to_owned())));
    assert_eq!(addresses(text), ["https://m/v2", "https://m/v2", "registry"]);
    assert_eq!(remarks("[HOST.'https://m']\n"), [(1, "unknown key `HOST`".to_owned())]);
    for inline in [
        "[host]\n'https://m' = {capabilities = ['pull']}\n",
        "server = 'https://m'\nhost.'https://m'.capabilities = ['pull']\n",
        "[host]\n'https://m'.capabilities = ['pull']\n",
    ] {
        let error = parse(inline).expect_err(inline);
        assert!((error.line, &error.problem) == (2, &Problem::InlineHost), "{inline}: {error}");
    }
    let long = format!("'a\\tb' = 1\n\"c\\n{}\" = 1", "x".repeat(500));
    let names: Vec<_> = remarks(&long).into_iter().map(|(_, message)| message).collect();
    assert_eq!(names, ["unknown key `a\\tb`".to_owned(), format!("unknown key `c {}`", "x".repeat(62))]);
}

#[test]
fn headers_that_frame_a_request_or_ask_for_something_else_are_left_out() {
    let text = "[header]\nHost = 'evil'\nContent-Length = '1'\nTransfer-Encoding = 'chunked'\nrange = 'bytes=0-1'\nX-Keep = 'v'\nAuthorization = 'Basic eDp5'\n";
    let file = parse(text).unwrap();
    let names: Vec<_> = file.hosts[0].access.headers.keys().map(|name| name.as_str().to_owned()).collect();
    assert_eq!(names, ["x-keep", "authorization"]);
    let said: Vec<_> = file.remarks.into_iter().map(|remark| remark.message).collect();
    assert_eq!(
        said,
        ["host", "content-length", "transfer-encoding", "range"]
            .map(|name| format!("header `{name}` is not for this file to set"))
    );
}

#[test]
fn neither_debug_nor_messages_carry_a_value() {
    let secrets = [
        "[header]\nx = 'hunter2'\n",
        "[header]\nx = ['hunter2', 3]\n",
        "[header]\nx = \"hunter2\\n\"\n",
        "server = 'ftp://u:hunter2@m'\n",
        "[host.'https://u:hunter2@m']\n",
        "ca = {hunter2 = 1}\n",
        "x = hunter2\n",
        "dial_timeout = 'hunter2'\n",
        "capabilities = ['hunter2']\n",
    ];
    for text in secrets {
        let said = match parse(text) {
            Ok(file) => format!("{file:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn what_cannot_be_understood_is_an_error_with_its_line() {
    let kind = |key, expected| Problem::Kind { key, expected };
    let list = "a list of strings";
    let pairs = "a path, a list of paths, or a list of pairs of paths";
    let table = [
        ("\nserver = 5", 2, kind("server", "a string")),
        ("capabilities = 'pull'", 1, kind("capabilities", list)),
        ("capabilities = ['pull', 1]", 1, kind("capabilities", list)),
        ("\n\ncapabilities = [\n'pull',\n'puII']", 5, Problem::Capability),
        ("ca = true", 1, kind("ca", "a path or a list of paths")),
        ("ca = [['a']]", 1, kind("ca", "a path or a list of paths")),
        ("client = 1", 1, kind("client", pairs)),
        ("client = [['a']]", 1, kind("client", pairs)),
        ("client = [['a', 'b', 'c']]", 1, kind("client", pairs)),
        ("client = [['a', 1]]", 1, kind("client", pairs)),
        ("skip_verify = 'true'", 1, kind("skip_verify", "true or false")),
        ("override_path = 1", 1, kind("override_path", "true or false")),
        ("dial_timeout = 5", 1, kind("dial_timeout", "a string")),
        ("header = 'x'", 1, kind("header", "a table")),
        ("[header]\nx = 1", 2, kind("header", "a table of strings and lists of strings")),
        ("[header]\n'x y' = '1'", 2, Problem::Header),
        ("[header]\nx = \"a\\r\\ny: z\"", 2, Problem::Header),
        ("[header]\nx = \"a\\u0000\"", 2, Problem::Header),
        ("host = 1", 1, kind("host", "a table")),
        ("[[host.'https://m']]", 1, kind("host", "a table")),
        ("[host]\n'https://m' = 1", 2, kind("host", "a table")),
        ("[host.'ftp://m']", 1, Problem::Address),
        ("[host.'HTTPS://m']", 1, Problem::Address),
        ("[host.'http://']", 1, Problem::Address),
        ("[host.'httpbin.example']", 1, Problem::Address),
        ("[host.'http+unix://m']", 1, Problem::Address),
        ("[host.\"https://m\\nx\"]", 1, Problem::Address),
        ("[host.'https://m x']", 1, Problem::Address),
        ("[host.'https://m:99999']", 1, Problem::Address),
        ("server = 'https://'", 1, Problem::Address),
    ];
    for (text, line, problem) in table {
        assert_eq!(parse(text), Err(SyntaxError { line, problem }), "{text}");
    }
    let many: String = (0..65).map(|n| format!("[host.'https://m{n}']\n")).collect();
    assert_eq!(parse(&many), Err(SyntaxError { line: 1, problem: Problem::TooManyHosts }));
    let bytes = HostsFile::parse(b"#\n\xff", Path::new("/"));
    assert_eq!(bytes, Err(SyntaxError { line: 2, problem: Problem::NotText }));
    for (text, line) in [("a = 1\na = 2", 2), ("a = 1\n\n[b", 3), ("[host.'https://m']\nca = \"x", 2)] {
        let error = parse(text).unwrap_err();
        assert!(error.line == line && matches!(error.problem, Problem::Toml(_)), "{text}: {error:?}");
    }
    let deep = format!("x = {}", "[".repeat(100_000));
    assert!(matches!(parse(&deep), Err(SyntaxError { problem: Problem::Toml(_), .. })));
}
