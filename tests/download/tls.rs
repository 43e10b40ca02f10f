//! HTTPS: which certificates are trusted, directly and through the tunnel of a proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::environment::run_in_child;
use super::images;
use crate::common::gzip;

/// A file of `tests/fixtures/tls`.
fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

/// A server that sends `images.gz` over TLS to whoever asks. Its certificate is for 127.0.0.1 and mirror.invalid.
fn https_server() -> SocketAddr {
    https_server_with("server.pem", true)
}

/// The same with another certificate for its key, and perhaps without TLS' own end of the connection.
fn https_server_with(certificate: &str, close_notify: bool) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(fixture(certificate)).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(fixture("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    serve(move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        read_head(&mut stream)?;
        let file = gzip(&images());
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        stream.write_all(&file)?;
        if close_notify {
            stream.conn.send_close_notify();
        }
        stream.flush()
    })
}

/// A proxy that tunnels to `server` whatever host it is asked for, and remembers the heads of the requests.
fn tunnel(server: SocketAddr, heads: Arc<Mutex<Vec<String>>>) -> SocketAddr {
    serve(move |mut client| {
        heads.lock().unwrap().push(read_head(&mut client)?);
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        let server = TcpStream::connect(server)?;
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || std::io::copy(&mut from, &mut to));
        std::io::copy(&mut { server }, &mut client).map(drop)
    })
}

/// Answers each connection to a free port of this machine.
fn serve(answer: impl Fn(TcpStream) -> std::io::Result<()> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A client that refuses the certificate ends the connection, which is no concern of the server.
    thread::spawn(move || listener.incoming().for_each(|stream| drop(stream.and_then(&answer))));
    address
}

fn read_head(stream: &mut impl Read) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[test]
fn certificates_of_ssl_cert_file_are_trusted_and_no_others() {
    let server = https_server();
    let mirror = format!("https://{server}");
    let trusting =
        |file: PathBuf, mirror: &str| run_in_child("", mirror, &[("SSL_CERT_FILE", file.to_str().unwrap())]).wait();
    assert_eq!(trusting(fixture("ca.pem"), &mirror), format!("from {mirror}, SHA-256 right"));
    let refused =
        |mirror: &str, reason: &str| format!("images: no mirror has it|  {mirror}: no secure connection: {reason}");
    assert_eq!(
        trusting(fixture("other-ca.pem"), &mirror),
        refused(
            &mirror,
            "the server's certificate is by no authority that this machine trusts; SSL_CERT_FILE names a file of \
             certificates to trust"
        )
    );
    assert_eq!(
        trusting("/dev/null".into(), &mirror),
        refused(
            &mirror,
            "this system has no certificates of authorities; install the package ca-certificates, or name a file of \
             certificates in SSL_CERT_FILE"
        )
    );
    let other_name = format!("https://localhost:{}", server.port());
    assert_eq!(
        trusting(fixture("ca.pem"), &other_name),
        refused(&other_name, "the server's certificate is for another name; check the mirror's URL")
    );
}

#[test]
fn a_certificate_with_an_algorithm_that_this_program_lacks() {
    let mirror = format!("https://{}", https_server_with("server-by-p521.pem", true));
    let certificates = fixture("ca-p521.pem");
    assert_eq!(
        run_in_child("", &mirror, &[("SSL_CERT_FILE", certificates.to_str().unwrap())]).wait(),
        format!(
            "images: no mirror has it|  {mirror}: no secure connection: the server's certificate is signed with an \
             algorithm that this program lacks, such as ECDSA with P-521; name another mirror with \
             --mirror=URL_OR_DIRECTORY"
        )
    );
}

#[test]
fn a_server_without_tls() {
    let server = serve(|mut stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let (mirror, certificates) = (format!("https://{server}"), fixture("ca.pem"));
    assert_eq!(
        run_in_child("", &mirror, &[("SSL_CERT_FILE", certificates.to_str().unwrap())]).wait(),
        format!(
            "images: no mirror has it|  {mirror}: no secure connection: what the server sends is not TLS, or was \
             damaged on the way"
        )
    );
}

#[test]
fn a_file_is_taken_without_tls_own_end_of_the_connection() {
    let mirror = format!("https://{}", https_server_with("server.pem", false));
    let child = run_in_child("", &mirror, &[("SSL_CERT_FILE", fixture("ca.pem").to_str().unwrap())]);
    assert_eq!(child.wait(), format!("from {mirror}, SHA-256 right"));
}

#[test]
fn https_goes_through_the_tunnel_of_a_proxy() {
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let proxy = tunnel(https_server(), heads.clone());
    let (mirror, certificates) = ("https://mirror.invalid/mnist", fixture("ca.pem"));
    let child = run_in_child(
        "",
        mirror,
        &[("https_proxy", &format!("http://me:se%20cret@{proxy}")), ("SSL_CERT_FILE", certificates.to_str().unwrap())],
    );
    assert_eq!(child.wait(), format!("from {mirror}, SHA-256 right"));
    let heads = heads.lock().unwrap();
    assert!(heads[0].starts_with("CONNECT mirror.invalid:443 HTTP/1.1\r\n"), "{}", heads[0]);
    assert!(heads[0].contains("Proxy-Authorization: Basic bWU6c2UgY3JldA==\r\n"), "{}", heads[0]);
    assert!(!heads[0].contains("mnist/images.gz"), "the path is secret: {}", heads[0]);
}
