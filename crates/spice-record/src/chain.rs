//! The checksums that chain the lines of change and update streams.
//!
//! Each line has the checksum of its decoded fields, and among these that of the line before. So a
//! damaged line is detected before it is used, and a missing, repeated or moved line is detected at the line
//! after it. The trailer has the checksum of the last line.

use crate::digest::Digest;
use crate::integrity::Integrity;
use crate::record::change::{Sealed, checksum_of};

/// The checksums of lines, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    /// Of the line before; `None` where reading began in the middle.
    last: Option<Digest>,
    scratch: Vec<u8>,
}

impl Chain {
    pub(crate) fn after(last: Digest) -> Self {
        Self {
            last: Some(last),
            scratch: Vec::new(),
        }
    }

    pub(crate) fn last(&self) -> Option<Digest> {
        self.last
    }

    /// Gives a line its checksums.
    pub(crate) fn seal<T: Sealed>(&mut self, line: &mut T) {
        *line.seal_mut().0 = self.last;
        let checksum = checksum_of(line, &mut self.scratch);
        *line.seal_mut().1 = Some(checksum);
        self.last = Some(checksum);
    }

    /// Checks that a line is as it was written, and that it follows the one before.
    pub(crate) fn check<T: Sealed>(
        &mut self,
        line: &T,
        integrity: Integrity,
    ) -> Result<(), String> {
        let kind = T::KIND;
        let (previous, checksum) = line.seal();
        if checksum.is_some() && checksum != Some(checksum_of(line, &mut self.scratch)) {
            return Err(format!("{kind} altered: it does not have its checksum"));
        }
        if integrity != Integrity::Verified {
            self.last = None;
            return Ok(());
        }
        if checksum.is_none() || previous.is_none() {
            return Err(format!("{kind} without its checksums"));
        }
        if self.last.is_some() && previous != self.last {
            return Err(format!(
                "lines are missing, repeated or moved before this {kind}: it does not follow the line \
                 before"
            ));
        }
        self.last = checksum;
        Ok(())
    }
}
