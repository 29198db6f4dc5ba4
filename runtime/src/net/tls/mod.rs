//! TLS 1.3 with one certificate on either side that the other side knows.
//!
//! There is no authority, no name and no chain: two parties that run a protocol together have met, so
//! each holds the other's certificate as a file and takes exactly that one, byte for byte. Whoever
//! presents it must also sign the handshake with its key. What a certificate says of names and dates is
//! not read; it is in force for as long as its file is given as `--peer-cert`, and revoked by no longer
//! giving it. The connection is fresh each time: no tickets, no resumption, no early data.

mod pin;
mod session;

pub use pin::Fingerprint;
pub(crate) use session::NOT_TLS;
pub(super) use session::Tls;

use pin::Pin;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ED25519};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Who a party is, and who its peer must be. Holds the private key, which stays in memory, in the hands of
/// ring, for as long as this or a connection made with it lives.
pub struct Identity {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    own: Fingerprint,
    peer: Fingerprint,
}

/// Which of the three files cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The private key.
    #[error("not a private key: {0}")]
    Key(String),
    /// The own certificate.
    #[error("not a certificate: {0}")]
    Certificate(String),
    /// The peer's certificate.
    #[error("not a certificate: {0}")]
    PeerCertificate(String),
    /// Key and certificate are no pair.
    #[error("the key does not belong to certificate {0}")]
    Pair(Fingerprint),
    /// Whoever holds our key would be our peer.
    #[error("this is our own certificate {0}, expected the peer's")]
    Mirror(Fingerprint),
}

impl Identity {
    /// Reads PEM: the private key, its certificate, and the peer's certificate.
    ///
    /// # Errors
    /// If one cannot be read, or they do not fit together.
    pub fn from_pem(key: &[u8], certificate: &[u8], peer: &[u8]) -> Result<Self, IdentityError> {
        let certificate = parse(certificate).map_err(IdentityError::Certificate)?;
        let peer = parse(peer).map_err(IdentityError::PeerCertificate)?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|e| IdentityError::Key(e.to_string()))?;
        let provider = Arc::new(ring::default_provider());
        let key = provider.key_provider.load_private_key(key);
        let key = key.map_err(|e| IdentityError::Key(e.to_string()))?;
        let (own, other) = (Fingerprint::of(&certificate), Fingerprint::of(&peer));
        let pair = CertifiedKey::new(vec![certificate], key);
        pair.keys_match().map_err(|_| IdentityError::Pair(own))?;
        if own == other {
            return Err(IdentityError::Mirror(own));
        }
        let pair = Arc::new(SingleCertAndKey::from(pair));
        let internal = |e: rustls::Error| IdentityError::Key(e.to_string());
        let pin = Arc::new(Pin::new(peer, provider.signature_verification_algorithms));
        let client = client(&provider, &pin, pair.clone()).map_err(internal)?;
        let server = server(&provider, &pin, pair).map_err(internal)?;
        Ok(Self { client: Arc::new(client), server: Arc::new(server), own, peer: other })
    }

    /// The own certificate's fingerprint.
    pub fn own(&self) -> Fingerprint {
        self.own
    }

    /// The fingerprint of the certificate that the peer must hold.
    pub fn peer(&self) -> Fingerprint {
        self.peer
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    pin: &Arc<Pin>,
    pair: Arc<SingleCertAndKey>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pin.clone())
        .with_client_cert_resolver(pair);
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server(
    provider: &Arc<CryptoProvider>,
    pin: &Arc<Pin>,
    pair: Arc<SingleCertAndKey>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(pin.clone())
        .with_cert_resolver(pair);
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The first certificate in PEM, which must also be one that signatures can be checked with.
fn parse(pem: &[u8]) -> Result<CertificateDer<'static>, String> {
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|e| e.to_string())?;
    rustls::server::ParsedCertificate::try_from(&certificate).map_err(|e| e.to_string())?;
    Ok(certificate)
}

/// A fresh private key and its certificate, both as PEM.
pub struct NewIdentity {
    /// The private key: Ed25519, PKCS #8.
    pub key: Zeroizing<String>,
    /// The certificate, signed by that key.
    pub certificate: String,
    /// The certificate's fingerprint.
    pub fingerprint: Fingerprint,
}

impl NewIdentity {
    /// Makes a key from the operating system's randomness. `name` stands in the certificate for people to
    /// read.
    ///
    /// # Errors
    /// If there is no randomness, or the name cannot stand in a certificate.
    pub fn generate(name: &str) -> Result<Self, String> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(|e| e.to_string())?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).map_err(|e| e.to_string())?;
        let fingerprint = Fingerprint::of(certificate.der());
        let key = Zeroizing::new(key.serialize_pem());
        Ok(Self { key, certificate: certificate.pem(), fingerprint })
    }
}
