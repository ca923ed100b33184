//! Asking.

use std::time::Duration;

use authzed::v1::check_bulk_permissions_pair::Response;
use authzed::v1::check_permission_response::Permissionship as Wire;
use authzed::v1::{
    CheckBulkPermissionsPair, CheckBulkPermissionsRequest, CheckBulkPermissionsRequestItem as Item,
    Consistency,
};
use authzed::{Client, Code};
use spice_cli::progress::Progress;
use spice_cli::{CommandError, Exit};
use spice_client::retry::Retry;
use spice_record::checks::{self, Answer, Check, Fault, Missing, Permissionship, Question};

/// Questions in a call. A server takes 10,000 (measured, SpiceDB v1.56); fewer show how far it is.
const BATCH: usize = 200;

/// The most characters of an error, or of the names that an answer depends on, that are kept: the
/// answers of a complete sample are held at the same time.
const LONGEST: usize = 4_000;

/// How often a question is asked again whose error may pass.
const TRIES: usize = 5;

/// How often one is asked again that was too deep, which depends on what the server came to first.
/// Where the data has cycles, SpiceDB v1.56 gave up 2 to 16 of 40 times on questions that it could
/// answer, at different revisions; after three more attempts fewer than 1 in 200 are left.
const DEEP_TRIES: usize = 3;

pub(crate) struct Checker<'a> {
    pub(crate) client: &'a Client,
    pub(crate) revision: &'a str,
    pub(crate) max_retries: usize,
    pub(crate) progress: &'a Progress,
}

impl Checker<'_> {
    /// Asks all of them at exactly the revision; the answers come in the order of the questions.
    pub(crate) async fn ask(&mut self, requests: Vec<Item>) -> Result<Vec<Check>, CommandError> {
        let mut checks = Vec::with_capacity(requests.len());
        for batch in requests.chunks(BATCH) {
            let mut answers = self.call(batch).await?;
            let mut tries = 0;
            while let Some(places) = self.to_ask_again(batch, &answers, tries).await? {
                tries += 1;
                let again: Vec<Item> = places.iter().map(|place| batch[*place].clone()).collect();
                for (place, answer) in places.into_iter().zip(self.call(&again).await?) {
                    answers[place] = answer;
                }
            }
            self.progress.add(batch.len() as u64);
            checks.extend(batch.iter().zip(answers).map(|(request, answer)| Check {
                request: Question(request.clone()),
                answer,
                other_server: None,
                inconclusive: false,
            }));
        }
        Ok(checks)
    }

    /// Which questions of a batch to ask once more after so many tries, where there are any. Returns
    /// after a pause where the server was busy.
    async fn to_ask_again(
        &self,
        batch: &[Item],
        answers: &[Answer],
        tries: usize,
    ) -> Result<Option<Vec<usize>>, CommandError> {
        let (mut places, mut busy) = (Vec::new(), false);
        for (place, answer) in answers.iter().enumerate() {
            let Answer::Error(fault) = answer else {
                continue;
            };
            match meaning(fault) {
                ErrorClass::TooDeep if tries < DEEP_TRIES => places.push(place),
                ErrorClass::TooDeep | ErrorClass::Answer => {}
                ErrorClass::MayPass if tries < TRIES => {
                    busy = true;
                    places.push(place);
                }
                ErrorClass::MayPass => {
                    return Err(self.unanswered(Exit::TryAgain, &batch[place], fault));
                }
                ErrorClass::Fails(exit) => {
                    return Err(self.unanswered(exit, &batch[place], fault));
                }
            }
        }
        if busy {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(Some(places).filter(|places| !places.is_empty()))
    }

    async fn call(&self, batch: &[Item]) -> Result<Vec<Answer>, CommandError> {
        let request = CheckBulkPermissionsRequest {
            consistency: Some(Consistency::at_exact(self.revision)),
            items: batch.to_vec(),
            with_tracing: false,
        };
        let retry = Retry::new(self.max_retries);
        let check = async || self.client.check_bulk(request.clone()).await;
        let pairs = retry.run("asking again", check).await?.pairs;
        let in_order = |(pair, asked): (&CheckBulkPermissionsPair, &Item)| {
            let of = |item: &Item| {
                (
                    item.resource.clone(),
                    item.permission.clone(),
                    item.subject.clone(),
                )
            };
            pair.request.as_ref().map(of) == Some(of(asked))
        };
        if pairs.len() != batch.len() || !pairs.iter().zip(batch).all(in_order) {
            return Err(CommandError::new(
                Exit::Failed,
                format!(
                    "{}: the answers are not those to the questions: {} of {}",
                    self.client.endpoint(),
                    pairs.len(),
                    batch.len()
                ),
            ));
        }
        pairs.into_iter().map(|pair| self.answer(pair)).collect()
    }

    fn answer(&self, pair: CheckBulkPermissionsPair) -> Result<Answer, CommandError> {
        let item = match pair.response {
            Some(Response::Item(item)) => item,
            // An error that is none.
            Some(Response::Error(status)) if status.code == 0 => return Err(self.unknown()),
            Some(Response::Error(status)) => {
                return Ok(Answer::Error(Fault {
                    code: status.code,
                    message: shortened(&status.message),
                    reason: authzed::reason_of(&status).map(|reason| shortened(&reason)),
                }));
            }
            None => return Err(self.unknown()),
        };
        let permissionship = match item.permissionship() {
            Wire::NoPermission => Permissionship::No,
            Wire::HasPermission => Permissionship::Yes,
            Wire::ConditionalPermission => Permissionship::Conditional,
            Wire::Unspecified => return Err(self.unknown()),
        };
        if let Some(info) = &item.partial_caveat_info {
            let names = info.missing_required_context.iter();
            if names.map(|name| name.len() + 1).sum::<usize>() > LONGEST {
                return Err(self.unknown());
            }
        }
        let missing = item.partial_caveat_info.map(|info| {
            let mut missing_required_context = info.missing_required_context;
            missing_required_context.sort();
            missing_required_context.dedup();
            Missing {
                missing_required_context,
            }
        });
        Ok(Answer::Item(checks::Item {
            permissionship,
            partial_caveat_info: missing,
        }))
    }

    /// What a question that has no answer means: neither agreement nor a disagreement.
    fn unanswered(&self, exit: Exit, request: &Item, fault: &Fault) -> CommandError {
        let endpoint = self.client.endpoint();
        let (request, code) = (Question(request.clone()), Code::from(fault.code));
        let message = &fault.message;
        let failure = CommandError::new(
            exit,
            format!("{endpoint} did not answer {request}: {code:?}: {message}"),
        );
        match exit {
            Exit::TryAgain => failure.hint("run the same command again when the server answers"),
            _ => failure,
        }
    }

    fn unknown(&self) -> CommandError {
        let endpoint = self.client.endpoint();
        CommandError::new(
            Exit::Failed,
            format!("{endpoint} gave an answer that this version does not know"),
        )
    }
}

fn shortened(words: &str) -> String {
    words.chars().take(LONGEST).collect()
}

/// What the error of one question means.
#[derive(Debug, PartialEq, Eq)]
enum ErrorClass {
    /// It belongs to the question, so an equal server gives the same.
    Answer,
    /// The server gave up at its maximum depth. Another attempt may be answered; where none is, it
    /// is neither agreement nor a disagreement.
    TooDeep,
    /// The server was busy: another attempt may be answered.
    MayPass,
    /// The server has failed, and another one might not.
    Fails(Exit),
}

fn meaning(fault: &Fault) -> ErrorClass {
    match Code::from(fault.code) {
        // Whatever its code: RESOURCE_EXHAUSTED until v1.45.
        _ if fault.is_too_deep() => ErrorClass::TooDeep,
        Code::FailedPrecondition | Code::InvalidArgument | Code::NotFound => ErrorClass::Answer,
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::ResourceExhausted => ErrorClass::MayPass,
        // The revision has left the history while it was asked.
        Code::OutOfRange => ErrorClass::Fails(Exit::HistoryLost),
        Code::Unauthenticated | Code::PermissionDenied => ErrorClass::Fails(Exit::Denied),
        _ => ErrorClass::Fails(Exit::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::{Code, ErrorClass, Exit, Fault, meaning};

    #[test]
    fn only_errors_of_the_check_itself_are_answers() {
        let of = |code: Code| {
            meaning(&Fault {
                code: code as i32,
                message: String::new(),
                reason: None,
            })
        };
        assert_eq!(of(Code::FailedPrecondition), ErrorClass::Answer);
        assert_eq!(of(Code::Unavailable), ErrorClass::MayPass);
        assert_eq!(of(Code::Internal), ErrorClass::Fails(Exit::Failed));
        assert_eq!(of(Code::OutOfRange), ErrorClass::Fails(Exit::HistoryLost));
    }

    #[test]
    fn a_too_deep_check_is_classified_by_reason_whatever_the_code() {
        for code in [Code::FailedPrecondition, Code::ResourceExhausted] {
            let fault = Fault {
                code: code as i32,
                message: String::new(),
                reason: Some("MAXIMUM_DEPTH_EXCEEDED".to_owned()),
            };
            assert_eq!(meaning(&fault), ErrorClass::TooDeep);
        }
    }
}
