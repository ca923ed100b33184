//! What became of updates: how many calls, the last revision, what was refused.

/// What became of updates.
#[derive(Debug)]
pub struct Outcome<T> {
    /// Calls that were acknowledged.
    pub calls: u64,
    /// The revision of the last of them.
    pub token: Option<String>,
    /// How many updates the server refused, where the policy continued without them.
    pub refused: u64,
    /// TOUCHes that were acknowledged but may have been skipped: see
    /// [`super::WriteEngine::verify_touches`].
    pub(super) unconfirmed: Vec<T>,
}

impl<T> Default for Outcome<T> {
    fn default() -> Self {
        Self {
            calls: 0,
            token: None,
            refused: 0,
            unconfirmed: Vec::new(),
        }
    }
}

impl<T> Outcome<T> {
    pub(super) fn add(&mut self, later: Self) {
        self.calls += later.calls;
        self.token = later.token.or(self.token.take());
        self.refused += later.refused;
        self.unconfirmed.extend(later.unconfirmed);
    }
}
