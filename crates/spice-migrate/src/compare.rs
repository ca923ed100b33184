//! Both ends, counted and digested.

use std::time::{Duration, Instant as Clock};

use spice_record::digest::Digest;
use spice_record::record::Filter;

use crate::commands::{self, At};
use crate::process::{Ended, Input, Output, pipe};
use crate::session::Session;
use crate::suite::{CommandError, Exit, Outcome};
use crate::time::Instant;

/// What was counted of one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) relationships: u64,
    pub(crate) digest: Digest,
}

/// Where both ends are read.
#[derive(Clone, Copy)]
pub(crate) struct Both<'a> {
    pub(crate) source: &'a str,
    pub(crate) source_at: At<'a>,
    pub(crate) target: &'a str,
    pub(crate) target_at: At<'a>,
    pub(crate) precision: &'a str,
    /// What of them is read, if that is not everything.
    pub(crate) filter: Option<&'a Filter>,
}

/// What a comparison came to.
#[derive(Clone, Debug)]
pub(crate) struct Compared {
    pub(crate) source: Counted,
    pub(crate) target: Counted,
    /// What expires before this instant was left out.
    pub(crate) as_of: Option<Instant>,
}

impl Compared {
    pub(crate) fn is_equal(&self) -> bool {
        self.source == self.target
    }

    /// What was left out, for messages.
    pub(crate) fn but(&self) -> String {
        match self.as_of {
            Some(as_of) => format!(", without what expires until {as_of}"),
            None => String::new(),
        }
    }
}

/// Why an end could not be read.
pub(crate) type Unread = (&'static str, Ended);

/// Counts one end: the outer error is this program's, the inner one a program's.
pub(crate) async fn read_end(
    session: &Session,
    context: &str,
    at: At<'_>,
    precision: &str,
    filter: Option<&Filter>,
    as_of: Option<Instant>,
) -> Outcome<Result<Counted, Unread>> {
    let (reader, writer) = pipe()?;
    let as_of = as_of.map(|as_of| as_of.to_string());
    let export = commands::export_relationships(context, at, precision, None, filter);
    let digest = commands::digest(precision, as_of.as_deref());
    let mut export = session
        .runner
        .spawn(&export, Input::None, Output::Pipe(writer))?;
    let digest = session
        .runner
        .spawn(&digest, Input::Pipe(reader), Output::Kept)?;
    let (ended, output) = digest.finish().await;
    // A digest that failed by itself is the reason for how the export ended.
    let is_first = !matches!(ended, Ended::Code(0 | 65));
    if is_first {
        export.signal(rustix::process::Signal::TERM);
    }
    let exported = export.wait().await;
    if !(exported.is_success() || is_first && exported.is_of_another()) {
        return Ok(Err(("spice-export", exported)));
    }
    let counted = crate::records::digests(&output).filter(|_| ended.is_success());
    Ok(match counted {
        Some(digests) => Ok(Counted {
            relationships: digests.total.relationships,
            digest: digests.total.digest,
        }),
        None => Err(("spice-digest", ended)),
    })
}

/// Counts both ends at the same time.
pub(crate) async fn read_both(
    session: &Session,
    both: &Both<'_>,
    as_of: Option<Instant>,
) -> Outcome<Result<Compared, Unread>> {
    let (source, target) = tokio::join!(
        read_end(
            session,
            both.source,
            both.source_at,
            both.precision,
            both.filter,
            as_of
        ),
        read_end(
            session,
            both.target,
            both.target_at,
            both.precision,
            both.filter,
            as_of
        ),
    );
    Ok(match (source?, target?) {
        (Ok(source), Ok(target)) => Ok(Compared {
            source,
            target,
            as_of,
        }),
        (Err(unread), _) | (_, Err(unread)) => Err(unread),
    })
}

/// Counts both ends; where they differ, once more without what expires soon.
pub(crate) async fn compare(
    session: &Session,
    both: &Both<'_>,
) -> Outcome<Result<Compared, Unread>> {
    let began = Clock::now();
    match read_both(session, both, None).await? {
        Ok(compared) if !compared.is_equal() => again(session, both, began.elapsed()).await,
        other => Ok(other),
    }
}

/// The same without what expires soon. Expiry is silent: ends that were read at different times differ by
/// what expired in between, and nothing is missing.
pub(crate) async fn again(
    session: &Session,
    both: &Both<'_>,
    took: Duration,
) -> Outcome<Result<Compared, Unread>> {
    // Twice the time that the first look took is enough.
    let hours = (took.as_secs() / 1_800 + 1).min(24);
    let as_of = Instant::now().after(Duration::from_secs(hours * 3_600));
    tracing::info!(
        "they differ; reading both without what expires until {as_of}, for that may be all"
    );
    let compared = read_both(session, both, Some(as_of)).await?;
    if Instant::now() > as_of {
        return Err(CommandError::new(
            Exit::TryAgain,
            format!("reading both ends took more than {hours} h, so they cannot be compared"),
        )
        .hint(format!("run: {}", session.words.same())));
    }
    Ok(compared)
}

/// Prints count and digest of both ends.
pub(crate) fn show(names: [&str; 2], compared: &Compared, precision: &str) -> Outcome {
    for (name, counted) in names.into_iter().zip([compared.source, compared.target]) {
        let line = format!(
            "{:<28} {:>12} relationships, digest {} ({precision})",
            crate::suite::escape(name),
            counted.relationships,
            counted.digest
        );
        crate::suite::stdio::print_line(&line)?;
    }
    Ok(())
}
