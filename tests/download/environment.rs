//! Proxies of the environment and signals, in a process of its own.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mnist::data::download::fetch::Limits;

use super::{Case, images, names};
use crate::common::gzip;
use crate::common::server::{Reply, Server};

/// A download of `images` by another process.
pub struct Child {
    process: std::process::Child,
    home: tempfile::TempDir,
}

impl Child {
    /// What it reports: where the file is from, or the error, with `|` for line ends.
    pub fn wait(self) -> String {
        let output = self.process.wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let report = stdout.split("REPORT ").nth(1).unwrap_or(&stdout);
        report.split(" END").next().unwrap().to_string()
    }
}

/// Runs this test program once more, but only [`child`], with `variables` as the only settings of proxies and certificates.
pub fn run_in_child(limits: &str, mirror: &str, variables: &[(&str, &str)]) -> Child {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    let this_module = module_path!().split_once("::").map_or("", |(_, module)| module);
    command.args(["--exact", &format!("{this_module}::child"), "--ignored", "--nocapture"]);
    command.env("DATA", home.path()).env("MIRROR", mirror).env("LIMITS", limits).envs(variables.iter().copied());
    Child { process: command.stdout(Stdio::piped()).spawn().unwrap(), home }
}

#[test]
#[ignore = "called by other tests, as a process of its own"]
fn child() {
    let variable = |name| std::env::var(name).unwrap();
    mnist::interrupt::install().unwrap();
    let mut case = Case::new([Ok(variable("MIRROR")), std::env::var("MIRROR_2")].into_iter().flatten());
    case.options.data_dir = variable("DATA").into();
    if variable("LIMITS") == "patient" {
        case.options.limits = Limits::default();
    }
    let report = match case.run() {
        Ok(origins) => origins[0].to_string(),
        Err(error) => format!("{} {error}", error.exit_code()).replace("1 images", "images").replace('\n', "|"),
    };
    println!("REPORT {report} END");
}

#[test]
fn proxies_of_the_environment() {
    let proxy = Server::start();
    proxy.on("/mnist/images.gz", [Reply::File(gzip(&images()))]);
    let (mirror, address) = ("http://mirror.invalid/mnist", proxy.url(""));
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        let child = run_in_child("", mirror, &[(variable, &address), ("no_proxy", "other.invalid,10.0.0.0/8")]);
        assert_eq!(child.wait(), format!("from {mirror}, SHA-256 right"), "{variable}");
    }
    let requests = proxy.requests();
    assert_eq!(requests.len(), 4);
    assert_eq!(requests[0].target, "http://mirror.invalid/mnist/images.gz");

    // With a password, which is sent but not shown.
    let with_password = address.replace("http://", "http://me:secret@");
    run_in_child("", mirror, &[("http_proxy", &with_password)]).wait();
    assert_eq!(proxy.requests()[4].header("Proxy-Authorization"), Some("Basic bWU6c2VjcmV0"));

    // Asked directly: what no_proxy lists, and this machine.
    for (variable, value) in [("no_proxy", "mirror.invalid"), ("NO_PROXY", ".invalid"), ("no_proxy", "*")] {
        run_in_child("", mirror, &[("http_proxy", &address), (variable, value)]).wait();
    }
    let local = Server::start();
    local.on("/images.gz", [Reply::File(gzip(&images()))]);
    run_in_child("", &local.url(""), &[("http_proxy", &address)]).wait();
    assert_eq!((proxy.requests().len(), local.requests().len()), (5, 1));

    // One for the other scheme is not asked; https goes through the proxy by CONNECT, which this one does not know.
    run_in_child("", mirror, &[("https_proxy", &address)]).wait();
    assert_eq!(proxy.requests().len(), 5);
    run_in_child("", "https://mirror.invalid/mnist", &[("https_proxy", &address)]).wait();
    assert_eq!(proxy.requests()[5].target, "mirror.invalid:443");
}

#[test]
fn a_proxy_that_does_not_answer_is_named() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = format!("http://me:secret@{closed}");
    let message = run_in_child("", "http://mirror.invalid", &[("http_proxy", &proxy), ("NO_PROXY", "a.b")]).wait();
    assert_eq!(
        message,
        format!(
            "images: no mirror has it|  http://mirror.invalid: cannot connect: Connection refused (os error 111) \
             (http_proxy=http://{closed} NO_PROXY=a.b)"
        )
    );
}

/// What a mirror is said to have answered if `variable` names no usable proxy.
fn unusable(mirror: &str, variable: &str) -> String {
    format!(
        "images: no mirror has it|  {mirror}: the environment variable {variable}: expected the URL of an HTTP proxy, such \
         as http://proxy.example:3128 or http://USER:PASSWORD@proxy.example:3128 (in a login, write % / \\ ? # as %25 %2F \
         %5C %3F %23); correct or unset it"
    )
}

#[test]
fn a_proxy_variable_is_refused_without_showing_it() {
    let mirror = "https://mirror.invalid/mnist";
    for value in [
        r"http://CORP\jdoe:S3cret@127.0.0.1:18101",
        r"CORP\jdoe:S3cret@127.0.0.1:18101",
        "http://me:12/S3cret@127.0.0.1:18101",
        "http://me:12?S3cret@127.0.0.1:18101",
        "http://me:12#S3cret@127.0.0.1:18101",
        "http://me:%FFS3cret@127.0.0.1:18101",
        "http://127.0.0.1:18101/S3cret",
        "http://127.0.0.1:18101/?S3cret",
        "socks5://me:S3cret@127.0.0.1:1080",
    ] {
        assert_eq!(
            run_in_child("", mirror, &[("https_proxy", value)]).wait(),
            unusable(mirror, "https_proxy"),
            "{value}"
        );
    }
}

#[test]
fn a_proxy_variable_that_no_url_would_use_may_be_wrong() {
    let proxy = Server::start();
    proxy.on("/mnist/images.gz", [Reply::File(gzip(&images()))]);
    let (mirror, address, socks) = ("http://mirror.invalid/mnist", proxy.url(""), "socks5://127.0.0.1:1080");
    for unused in ["all_proxy", "https_proxy"] {
        let child = run_in_child("", mirror, &[("http_proxy", &address), (unused, socks)]);
        assert_eq!(child.wait(), format!("from {mirror}, SHA-256 right"), "{unused}");
    }
    let local = Server::start();
    local.on("/images.gz", [Reply::File(gzip(&images()))]);
    let child = run_in_child("", &local.url(""), &[("http_proxy", socks)]);
    assert_eq!(child.wait(), format!("from {}, SHA-256 right", local.url("")));
    assert_eq!(run_in_child("", mirror, &[("ALL_PROXY", socks)]).wait(), unusable(mirror, "ALL_PROXY"));
}

#[test]
fn what_a_proxy_answers_to_connect_is_told() {
    let connect = |code, reason, login: &str| {
        let proxy = Server::start();
        proxy.on("mirror.invalid:443", [Reply::status(code, reason)]);
        let address = proxy.url("");
        let value = address.replace("http://", &format!("http://{login}"));
        let message = run_in_child("", "https://mirror.invalid", &[("https_proxy", &value)]).wait();
        let answer = message.strip_prefix("images: no mirror has it|  https://mirror.invalid: ").unwrap_or(&message);
        (answer.replace(&address, "http://PROXY"), proxy.requests().len())
    };
    let told = |answer: &str| format!("the proxy answers {answer} (https_proxy=http://PROXY)");
    assert_eq!(connect(403, "Forbidden", ""), (told("403 Forbidden"), 1));
    assert_eq!(connect(502, "Bad Gateway", ""), (told("502 Bad Gateway"), 2));
    assert_eq!(connect(503, "Service Unavailable", ""), (told("503 Service Unavailable"), 2));
    let wants = told("407 Proxy Authentication Required");
    assert_eq!(
        connect(407, "Login", ""),
        (format!("{wants}; it wants a login: set https_proxy=http://USER:PASSWORD@HOST:PORT"), 1)
    );
    assert_eq!(connect(407, "Login", "me:S3cret@"), (format!("{wants}; it refuses the login in https_proxy"), 1));

    // Without a tunnel, the same.
    let proxy = Server::start();
    proxy.on("/images.gz", [Reply::status(407, "Login")]);
    assert_eq!(
        run_in_child("", "http://mirror.invalid", &[("http_proxy", &proxy.url(""))]).wait(),
        format!(
            "images: no mirror has it|  http://mirror.invalid: the proxy answers 407 Proxy Authentication Required \
             (http_proxy={}); it wants a login: set http_proxy=http://USER:PASSWORD@HOST:PORT",
            proxy.url("")
        )
    );
}

#[test]
fn a_directory_needs_no_proxy_not_even_a_right_one() {
    let mirror = tempfile::tempdir().unwrap();
    fs::write(mirror.path().join("images"), images()).unwrap();
    let directory = mirror.path().to_str().unwrap();
    let unasked = ("MIRROR_2", "http://mirror.invalid");
    let child = run_in_child("", directory, &[("ALL_PROXY", "socks5://host:1080"), unasked]);
    assert_eq!(child.wait(), format!("from {directory}, SHA-256 right"));
}

#[test]
fn a_signal_ends_the_download_at_once_and_leaves_nothing() {
    use rustix::process::{Pid, Signal, kill_process};
    let whole = gzip(&images());
    let cases = [
        (Reply::Hang, Signal::INT, "130 stopped by SIGINT"),
        (Reply::HangAfter(whole, 100_000), Signal::TERM, "143 stopped by SIGTERM"),
        (Reply::Status(503, "", vec![("Retry-After", "20".to_string())]), Signal::INT, "130 stopped by SIGINT"),
    ];
    for (reply, signal, expected) in cases {
        let server = Server::start();
        server.on("/images.gz", [reply]);
        let child = run_in_child("patient", &server.url(""), &[]);
        while server.requests().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        let (started, home) = (Instant::now(), child.home.path().to_path_buf());
        kill_process(Pid::from_child(&child.process), signal).unwrap();
        let Child { process, home: _kept } = child;
        let output = process.wait_with_output().unwrap();
        let elapsed = started.elapsed();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains(&format!("REPORT {expected} END")), "{stdout}");
        assert!(elapsed < Duration::from_millis(250), "{elapsed:?}");
        assert_eq!(names(&home), [""; 0]);
    }
}
