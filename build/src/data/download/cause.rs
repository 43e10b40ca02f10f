//! What an error of the HTTP client comes down to, in words for users.

use std::io::ErrorKind;

use rustls::CertificateError;

/// What helps where this program and a server have no algorithm in common.
const LACKS: &str = "this program lacks, such as ECDSA with P-521; name another mirror with --mirror=URL_OR_DIRECTORY";

/// The cause of `error`, without the client's words around it.
pub fn cause(error: &ureq::Error) -> String {
    if let Some(error) = of_tls(error) {
        return insecure(error);
    }
    match error {
        ureq::Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => "the server closed it".to_string(),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Protocol(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// The error of TLS behind an error of the client.
pub fn of_tls(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// What is wrong with a connection by TLS, and what helps. TLS' own texts are those of its source.
fn insecure(error: &rustls::Error) -> String {
    use rustls::Error::*;
    match error {
        InvalidCertificate(error) => format!("the server's certificate {}", refused(error)),
        NoCertificatesPresented => "the server has no certificate".to_string(),
        AlertReceived(alert) => format!(
            "the server ends it with TLS alert {}: perhaps it has only algorithms that {LACKS}",
            u8::from(*alert)
        ),
        PeerIncompatible(_) => format!("the server has only versions or algorithms of TLS that {LACKS}"),
        General(text) if text.contains("No CA certificates") => {
            "this system has no certificates of authorities; install the package ca-certificates, or name a file of \
             certificates in SSL_CERT_FILE"
                .to_string()
        }
        General(text) => text.clone(),
        Other(error) => error.to_string(),
        _ => "what the server sends is not TLS, or was damaged on the way".to_string(),
    }
}

/// Why a certificate is refused, and what helps.
fn refused(error: &CertificateError) -> String {
    use CertificateError::*;
    let text = match error {
        UnknownIssuer => {
            "is by no authority that this machine trusts; SSL_CERT_FILE names a file of certificates to trust"
        }
        Expired | ExpiredContext { .. } => "has expired; if this machine's clock is wrong, set it",
        NotValidYet | NotValidYetContext { .. } => "is not valid yet; if this machine's clock is wrong, set it",
        NotValidForName | NotValidForNameContext { .. } => "is for another name; check the mirror's URL",
        Revoked => "is revoked",
        UnsupportedSignatureAlgorithmContext { .. } | UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            return format!("is signed with an algorithm that {LACKS}");
        }
        _ => "is not valid",
    };
    text.to_string()
}
