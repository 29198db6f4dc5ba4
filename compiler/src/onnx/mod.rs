//! stub
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("x")]
    X,
}
#[derive(Debug, Clone)]
pub struct UnsupportedNode {
    pub name: String,
    pub operator: String,
    pub reason: String,
    pub advice: String,
}
impl std::fmt::Display for UnsupportedNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {}", self.name)
    }
}
