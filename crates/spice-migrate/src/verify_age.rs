//! How old the result of `verify` may be.

use crate::safety::{Policy, Unsafe};
use crate::time::Instant;

/// Whether both ends were found equal, and not too long ago.
///
/// # Errors
///
/// They were not, or that was too long ago.
pub(crate) fn is_verified(
    proved_at: Option<Instant>,
    policy: &Policy,
    now: Instant,
) -> Result<(), Unsafe> {
    let Some(most) = &policy.max_verify_age else {
        return Ok(());
    };
    match proved_at {
        None => Err(Unsafe::NotVerified),
        Some(at) if at.elapsed(now) > most.duration() + policy.grace => {
            Err(Unsafe::VerifiedTooLongAgo(at))
        }
        Some(_) => Ok(()),
    }
}
