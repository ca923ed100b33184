//! The questions of another server asked here, and what is made of the two answers.

use authzed::v1::Consistency;
use spice_cli::{CommandError, Exit};
use spice_client::schema;
use spice_record::Header;
use spice_record::checks::{Check, Comparison};

use crate::checker::Checker;
use crate::input::Batches;
use crate::tally::{Compared, Tally};
use crate::write::Writer;

/// How many disagreements are named on stderr.
const NAMED: usize = 5;

/// Asks the questions of a stream, and writes those that are answered otherwise, and those that are
/// inconclusive.
///
/// # Errors
///
/// What the server or the input fails with, and exit 1 where too much is inconclusive.
pub(crate) async fn compare(
    mut checker: Checker<'_>,
    other: &Header,
    mut asked: Batches,
) -> Result<Exit, CommandError> {
    let endpoint = checker.client.endpoint();
    let differ = schema_difference(&checker, other).await?;
    let mut writer = Writer::new(Header {
        schema_difference: differ.clone(),
        ..crate::header(checker.revision, other.schema.clone())
    });
    let (mut tally, mut compared) = (Tally::default(), Compared::default());
    let (mut different, mut inconclusive) = (Named::default(), Named::default());
    while let Some(batch) = asked.next().await? {
        let requests = batch.iter().map(|check| check.request.0.clone()).collect();
        let here = checker.ask(requests).await?;
        tally.add(&here);
        let mut unlike = Vec::new();
        for (there, here) in batch.into_iter().zip(here) {
            let comparison = compared.add(&there.answer, &here.answer);
            let check = Check {
                other_server: Some(here.answer),
                inconclusive: comparison == Comparison::Inconclusive,
                ..there
            };
            match comparison {
                Comparison::Alike => continue,
                Comparison::Different => different.name(&check, endpoint, ""),
                Comparison::Inconclusive => inconclusive.name(&check, endpoint, "inconclusive: "),
            }
            unlike.push(check);
        }
        writer.write(unlike).await?;
    }
    if let Some(difference) = &differ {
        tracing::warn!("the schema of {endpoint} is another one: {difference}");
    }
    writer.finish().await?;
    outcome(endpoint, &tally, &compared, differ.is_some())
}

/// What the schema of this server has otherwise than the other one's, where that is known.
async fn schema_difference(
    checker: &Checker<'_>,
    other: &Header,
) -> Result<Option<String>, CommandError> {
    let Some(text) = &other.schema else {
        return Ok(None);
    };
    let (client, at) = (checker.client, Consistency::at_exact(checker.revision));
    let there = client.read_schema().await?.map(|schema| schema.text);
    schema::difference(client, at, there.as_deref(), text).await
}

/// The first ones of a kind on stderr.
#[derive(Default)]
struct Named(usize);

impl Named {
    fn name(&mut self, check: &Check, endpoint: &str, what: &str) {
        self.0 += 1;
        if self.0 > NAMED {
            return;
        }
        let here = check.other_server.as_ref().map(ToString::to_string);
        let (request, there) = (&check.request, &check.answer);
        let here = here.unwrap_or_default();
        tracing::warn!("{what}{request}: {there} there, {here} on {endpoint}");
    }
}

/// The exit code, and the message with the reason.
fn outcome(
    endpoint: &str,
    tally: &Tally,
    compared: &Compared,
    schemas_differ: bool,
) -> Result<Exit, CommandError> {
    let inconclusive = compared.describe_inconclusive(endpoint);
    if compared.different > 0 || schemas_differ {
        if compared.inconclusive() > 0 {
            tracing::warn!("{inconclusive}");
        }
        let count = compared.different;
        tracing::warn!("{endpoint} disagrees on {count} of {tally}");
        return Ok(Exit::Partial);
    }
    if compared.proves_too_little() {
        let failure = CommandError::new(
            Exit::Failed,
            format!("too little can be compared: {inconclusive}"),
        );
        return Err(failure.hint(
            "compare --dispatch-max-depth of both SpiceDBs, and look for cycles in the relationships of \
             the questions on stdout",
        ));
    }
    if compared.inconclusive() > 0 {
        tracing::warn!("{inconclusive}");
    }
    tracing::info!("{endpoint} gives the same answers: {tally}");
    Ok(Exit::Done)
}
