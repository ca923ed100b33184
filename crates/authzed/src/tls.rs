//! TLS as the configuration asks for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::TlsConfig;
use crate::error::is_authority;

/// The protocol that is negotiated in the handshake; Go's gRPC servers and clients insist on it too.
pub(crate) const HTTP2: &[u8] = b"h2";

/// Why the configuration cannot be used: a sentence for people.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// An image from scratch, for example, holds no certificates.
    #[error(
        "no certificate authority is known here, so the server's certificate cannot be verified"
    )]
    NoAuthority,
    #[error("{0}")]
    Given(String),
}

impl From<String> for Unusable {
    fn from(message: String) -> Self {
        Self::Given(message)
    }
}

/// Does TLS handshakes with one server name.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: TlsConnector,
    server_name: ServerName<'static>,
}

impl Connector {
    /// Reads the files that the configuration names.
    pub(crate) fn new(config: &TlsConfig, server_name: &str) -> Result<Self, Unusable> {
        let server_name = ServerName::try_from(server_name.to_owned()).map_err(|_| {
            format!("{server_name:?} is no host name that a certificate could hold")
        })?;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(client_config(config)?)),
            server_name,
        })
    }

    pub(crate) async fn handshake<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.tls.connect(self.server_name.clone(), stream).await
    }
}

fn client_config(config: &TlsConfig) -> Result<ClientConfig, Unusable> {
    // Named here, so that a second provider somewhere in the program does not matter.
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let verifier: Arc<dyn ServerCertVerifier> = if !config.verify {
        Arc::new(AcceptAnyServer(provider))
    } else if config.ca_path.is_none() && config.ca_pem.is_none() {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        webpki(roots, provider)?
    } else {
        let (roots, trusted) = authorities(config)?;
        Arc::new(TrustedServer {
            webpki: webpki(roots, provider)?,
            trusted,
        })
    };
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut tls = match &config.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(&identity.certificate_path)?;
            let key = PrivateKeyDer::from_pem_file(&identity.key_path)
                .map_err(|error| unusable(&identity.key_path, "a private key", &error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("the client certificate cannot be used: {error}"))?
        }
    };
    tls.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(tls)
}

/// The authorities that the configuration names, also as a list.
fn authorities(
    config: &TlsConfig,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), String> {
    let mut roots = RootCertStore::empty();
    let mut trusted = Vec::new();
    let mut trust = |source: &Path, certificates: Vec<CertificateDer<'static>>| {
        for certificate in certificates {
            roots
                .add(certificate.clone())
                .map_err(|error| unusable(source, "an authority", &error))?;
            trusted.push(certificate);
        }
        Ok::<(), String>(())
    };
    if let Some(path) = &config.ca_path {
        for file in files(path)? {
            trust(&file, certificates(&file)?)?;
        }
    }
    let given = config.ca_pem.as_ref().map(|pem| Path::new(&pem.source));
    if let (Some(pem), Some(given)) = (&config.ca_pem, given) {
        let found = CertificateDer::pem_slice_iter(&pem.text).collect::<Result<_, _>>();
        let found = found.map_err(|error| unusable(given, "certificates", &error))?;
        trust(given, found)?;
    }
    if trusted.is_empty() {
        let source = config.ca_path.as_deref().or(given).unwrap_or(Path::new(""));
        return Err(format!("{}: no certificate in it", source.display()));
    }
    Ok((roots, trusted))
}

fn webpki(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Unusable> {
    if roots.is_empty() {
        return Err(Unusable::NoAuthority);
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| error.to_string().into())
}

/// The file itself, or the files of the folder.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    Ok(files)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(path, "certificates", &error))
}

fn unusable(path: &Path, what: &str, error: &dyn std::error::Error) -> String {
    format!("{}: cannot be read as {what}: {error}", path.display())
}

/// The usual verification, which also accepts a server that shows one of the trusted certificates.
///
/// Such a certificate, signed with its own key, is what `openssl req -x509` makes. It is marked as
/// an authority's, which the usual verification refuses to take from a server; Go and OpenSSL do.
#[derive(Debug)]
struct TrustedServer {
    webpki: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for TrustedServer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self
            .webpki
            .verify_server_cert(certificate, intermediates, server_name, ocsp, now)
        {
            // The period of validity has been checked when this is found.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                if is_authority(&other) && self.trusted.contains(certificate) =>
            {
                let parsed = ParsedCertificate::try_from(certificate)?;
                verify_server_name(&parsed, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Accepts every certificate; the signatures are checked all the same.
#[derive(Debug)]
struct AcceptAnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;
    use crate::config::Pem;
    use crate::error::{Cause, cause_of};

    /// Made by `openssl req -x509`: signed with its own key, for spicedb.example, until 2126.
    const SELF_SIGNED: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBpjCCAU2gAwIBAgIUdO2uWWNxpslJk45MnK72n+o1DfEwCgYIKoZIzj0EAwIw\n\
GjEYMBYGA1UEAwwPc3BpY2VkYi5leGFtcGxlMCAXDTI2MTEyNDAyNTQyMFoYDzIx\n\
MjYxMDMxMDI1NDIwWjAaMRgwFgYDVQQDDA9zcGljZWRiLmV4YW1wbGUwWTATBgcq\n\
hkjOPQIBBggqhkjOPQMBBwNCAARd3zYnoc1dNWkcfNGrgUuqEtN+EKbI8YBRscXl\n\
kViKE+iq7yLnd57hIe5EuY4HcAtw8JxWPWoxj9AwSktBGifCo28wbTAdBgNVHQ4E\n\
FgQUlsQhfQ6mlZSUxau9jNJoUz6qZekwHwYDVR0jBBgwFoAUlsQhfQ6mlZSUxau9\n\
jNJoUz6qZekwDwYDVR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgg9zcGljZWRiLmV4\n\
YW1wbGUwCgYIKoZIzj0EAwIDRwAwRAIgKdgj2qYuZfGCep/CxY7q4d78HgI6ch2U\n\
WmGhlSnFHZMCICJKcaGjPzeGgrK+Q7BxQ+gVvxDAjM1wAH3RWxJzKTVX\n\
-----END CERTIFICATE-----\n\n";

    /// The verdict of `verifier` on that certificate, shown under `name`, in January 2027.
    fn verdict(verifier: &dyn ServerCertVerifier, name: &'static str) -> Result<(), rustls::Error> {
        let certificate = CertificateDer::from_pem_slice(SELF_SIGNED.as_bytes()).unwrap();
        let name = ServerName::try_from(name).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        verifier
            .verify_server_cert(&certificate, &[], &name, &[], now)
            .map(drop)
    }

    fn trusting_itself() -> TrustedServer {
        let certificate = CertificateDer::from_pem_slice(SELF_SIGNED.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let webpki = webpki(roots, Arc::new(ring::default_provider())).unwrap();
        TrustedServer {
            webpki,
            trusted: vec![certificate],
        }
    }

    #[test]
    fn a_trusted_certificate_may_be_shown_itself() {
        verdict(&trusting_itself(), "spicedb.example").unwrap();
    }

    #[test]
    fn a_trusted_certificate_counts_for_its_own_name_only() {
        let error = verdict(&trusting_itself(), "other.example").unwrap_err();
        assert_eq!(cause_of(&error), Some(Cause::OtherHostName), "{error}");
    }

    #[test]
    fn an_authority_that_is_not_trusted_is_refused_with_advice() {
        let verifier = TrustedServer {
            trusted: Vec::new(),
            ..trusting_itself()
        };
        let error = verdict(&verifier, "spicedb.example").unwrap_err();
        assert_eq!(cause_of(&error), Some(Cause::AuthorityAsServer), "{error}");
    }

    #[test]
    fn authorities_are_read_from_a_file_a_folder_or_a_text() {
        let folder = tempfile::tempdir().unwrap();
        let connector = |path: &Path| {
            let config = TlsConfig {
                ca_path: Some(path.to_owned()),
                ..TlsConfig::default()
            };
            Connector::new(&config, "spicedb.example")
                .map(drop)
                .map_err(|error| error.to_string())
        };
        let from_pem = |pem: &str| {
            let config = TlsConfig {
                ca_pem: Some(Pem {
                    source: "the given text".to_owned(),
                    text: pem.as_bytes().to_vec(),
                }),
                ..TlsConfig::default()
            };
            Connector::new(&config, "spicedb.example")
                .map(drop)
                .map_err(|error| error.to_string())
        };
        from_pem(SELF_SIGNED).unwrap();
        let empty = from_pem("not a certificate").unwrap_err();
        assert_eq!(empty, "the given text: no certificate in it");
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        let broken = from_pem(broken).unwrap_err();
        assert!(
            broken.starts_with("the given text: cannot be read as certificates"),
            "{broken}"
        );

        let empty = connector(folder.path()).unwrap_err();
        assert!(empty.ends_with(": no certificate in it"), "{empty}");

        let path = folder.path().join("ca.pem");
        fs::File::create(&path)
            .unwrap()
            .write_all(SELF_SIGNED.as_bytes())
            .unwrap();
        fs::write(folder.path().join("README"), "not a certificate").unwrap();
        connector(&path).unwrap();
        connector(folder.path()).unwrap();
        assert!(
            connector(&folder.path().join("none.pem"))
                .unwrap_err()
                .contains("none.pem")
        );
    }
}
