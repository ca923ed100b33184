//! Everything that is looked at of one end.

use std::time::{Duration, SystemTime};

use authzed::v1::Consistency;
use authzed::zedtoken;
use authzed::{Client, DatastoreKind, Kind, Security, compare_descriptors};
use spice_cli::{CommandError, Connection, Exit};
use spice_client::{connect, datastore};
use spice_record::record::Filter;
use tokio::time::{Instant, timeout_at};

use super::sample::Bounds;
use super::{Probe, failure_of, no_answer};
use crate::facts::{Answer, Clock, Encryption, Facts, Failure, Has, SchemaText};
use crate::finding::Place;
use crate::steps::{Call, Steps, needs};

/// How much of a target is counted, and for how long.
const TARGET_COUNT: u64 = 10_000;
const TARGET_TIME: Duration = Duration::from_secs(2);

/// What is to be looked at.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    pub(crate) place: Place,
    pub(crate) steps: Steps,
    /// For how long relationships of the source are read.
    pub(crate) sample: Duration,
    /// Whether a marker is written to the source.
    pub(crate) mark: bool,
    pub(crate) patience: Duration,
    pub(crate) deadline: Instant,
    /// Only relationships within it are read.
    pub(crate) filter: Option<&'a Filter>,
}

/// What was seen, and the server to ask on.
pub(crate) struct Seen {
    pub(crate) facts: Facts,
    pub(crate) probe: Option<Probe>,
}

/// An end whose token command did not end in time.
pub(crate) fn without_settings(context: &str) -> Seen {
    let mut facts = Facts::new(context, &format!("[{context}]"));
    facts.contact = Err(Failure {
        message: "its token-command did not end in time".to_owned(),
        hint: "run that command by hand; or raise --timeout".to_owned(),
        ..no_answer()
    });
    Seen { facts, probe: None }
}

/// Connects, and looks at a server.
///
/// # Errors
///
/// Where the attempt to connect panicked.
pub(crate) async fn look(
    look: Look<'_>,
    context: &str,
    connection: &Connection,
) -> Result<Seen, CommandError> {
    let mut facts = Facts::new(context, connection.endpoint());
    facts.encryption = encryption(connection);
    let contact = timeout_at(look.deadline, connect::first_contact(connection)).await;
    let (client, read_schema) = match contact {
        Err(_) => {
            let mut failure = no_answer();
            if let Some(proxy) = &connection.config().proxy {
                failure.message = format!("through the proxy {proxy}: {}", failure.message);
            }
            facts.contact = Err(failure);
            return Ok(Seen { facts, probe: None });
        }
        Ok(contact) => match usable(contact?, connection) {
            Ok(usable) => usable,
            Err(failure) => {
                facts.contact = Err(failure);
                return Ok(Seen { facts, probe: None });
            }
        },
    };
    facts.answers.insert(Call::ReadSchema, read_schema);
    let probe = Probe {
        client,
        patience: look.patience,
        deadline: look.deadline,
    };
    probe.look(look, connection, &mut facts).await;
    Ok(Seen {
        facts,
        probe: Some(probe),
    })
}

/// The client; also where only the first call is refused, so that every other one is tried as well.
fn usable(
    contact: Result<Client, authzed::Error>,
    connection: &Connection,
) -> Result<(Client, Answer), Failure> {
    let error = match contact {
        Ok(client) => return Ok((client, Answer::Allowed)),
        Err(error) => error,
    };
    let failure = failure_of(&error);
    let is_one_call = failure.kind == Kind::Denied
        && !failure.is_other_key
        && error.http_status().is_none()
        && error.rpc() == Call::ReadSchema.name();
    match Client::new(connection.config()) {
        Ok(client) if is_one_call => Ok((client, Answer::Denied(failure.message))),
        _ => Err(failure),
    }
}

fn encryption(connection: &Connection) -> Encryption {
    match &connection.config().security {
        Security::Plaintext => Encryption::Plaintext {
            is_exposed: connection.exposes_token,
        },
        Security::Tls(tls) if tls.verify => Encryption::Verified,
        Security::Tls(_) => Encryption::Unverified,
    }
}

impl Probe {
    async fn look(&self, look: Look<'_>, connection: &Connection, facts: &mut Facts) {
        let offers = self.client.offers();
        facts.has = Has {
            expiry: offers.expiry,
            checkpoints: offers.checkpoints,
            schema_at_revision: offers.schema_at_revision(),
        };
        facts.version = self.call(self.client.server_version()).await.ok().flatten();
        self.look_at_revision(connection, facts).await;
        if facts.answers.get(&Call::ReadSchema) == Some(&Answer::Allowed) {
            facts.schema = match self.call(self.client.read_schema()).await {
                Ok(Some(schema)) => SchemaText::Text(schema.text),
                Ok(None) => SchemaText::None,
                Err(failure) => {
                    let answer = Answer::of_failure(&failure);
                    facts.answers.insert(Call::ReadSchema, answer);
                    SchemaText::Unknown
                }
            };
        }
        facts.unknown_fields = self.unknown_fields().await;
        let planned = needs(look.place, look.steps).map(|need| need.call);
        // Such a server gives its newest revision with the answer to a question, whatever is planned.
        let asks = facts.schema == SchemaText::None && !facts.has.schema_at_revision;
        for call in planned.chain(asks.then_some(Call::CheckBulk)) {
            let is_asked = !facts.answers.contains_key(&call)
                && (facts.has.schema_at_revision
                    || !matches!(call, Call::DiffSchema | Call::ReflectSchema));
            if is_asked && let Some(answer) = self.answer(call).await {
                facts.answers.insert(call, answer);
            }
        }
        if let SchemaText::Text(text) = &facts.schema
            && matches!(
                facts.answers.get(&Call::ReflectSchema),
                Some(Answer::Denied(_))
            )
        {
            facts.lacks_definitions = self.needs_definitions(text).await;
        }
        self.look_at_limits(look, facts).await;
        self.look_at_watch(look, facts).await;
        self.look_at_relationships(look, facts).await;
    }

    /// The newest revision, what kind of datastore it shows, and its clock.
    async fn look_at_revision(&self, connection: &Connection, facts: &mut Facts) {
        // A token that may not read the schema may still be given a revision.
        let mut head = self.call(self.client.head()).await;
        if head.is_err() {
            let newest = Consistency::fully_consistent();
            let reflected = self.call(self.client.reflect_schema(newest)).await;
            let read_at = reflected.ok().and_then(|schema| schema.read_at);
            head = read_at.map(|token| token.token).ok_or_else(no_answer);
        }
        let Ok(head) = head else {
            return;
        };
        facts.clock = clock(&head, None);
        let kind = datastore::kind_of_server(connection, &self.client, &head);
        facts.kind = match timeout_at(self.until(), kind).await {
            Ok(Ok(kind)) => Ok(kind),
            Ok(Err(failure)) if failure.exit == Exit::Usage => Err(contradiction(&failure)),
            Ok(Err(_)) | Err(_) => Ok(DatastoreKind::of_token(&head)),
        };
        let is_now = matches!(
            facts.kind,
            Ok(DatastoreKind::CockroachDb | DatastoreKind::Spanner)
        );
        facts.clock = facts.clock.map(|clock| Clock { is_now, ..clock });
        facts.head = Some(head);
    }

    /// Fields of relationships, and of what holds them, that only the server knows.
    async fn unknown_fields(&self) -> Option<Vec<String>> {
        const MESSAGES: [&str; 6] = [
            "Relationship",
            "ContextualizedCaveat",
            "SubjectReference",
            "ObjectReference",
            "RelationshipUpdate",
            "WatchResponse",
        ];
        let differences = self.call(compare_descriptors(&self.client)).await.ok()?;
        let unknown = differences.iter().filter_map(|difference| {
            let authzed::Difference::Unknown { element } = difference else {
                return None;
            };
            let name = element.strip_prefix("authzed.api.v1.")?;
            let message = name.split('.').next()?;
            MESSAGES.contains(&message).then(|| name.to_owned())
        });
        Some(unknown.collect())
    }

    async fn look_at_limits(&self, look: Look<'_>, facts: &mut Facts) {
        let is_allowed = |facts: &Facts, call| facts.answers.get(&call) == Some(&Answer::Allowed);
        if is_allowed(facts, Call::Export) {
            facts.limits.page = self.page_limit().await;
        }
        if is_allowed(facts, Call::WriteRelationships) {
            facts.limits.updates = self.updates_limit().await;
            facts.limits.context = self.context_limit().await;
            if look.place == Place::Target && facts.has.expiry {
                facts.takes_expiry = self.takes_expiry().await;
            }
        }
        if look.place == Place::Target && is_allowed(facts, Call::DiffSchema) {
            facts.limits.message = self.message_limit().await;
        }
    }

    async fn look_at_watch(&self, look: Look<'_>, facts: &mut Facts) {
        let is_planned = needs(look.place, look.steps).any(|need| need.call == Call::Watch);
        if !is_planned {
            return;
        }
        let head = facts.head.clone();
        let head = head.as_deref();
        let must_drain = head.is_none() || facts.kind().dies_of_cancelled_watch();
        let watched = self.watch(head, must_drain).await;
        facts.answers.insert(Call::Watch, Answer::of(&watched));
        facts.watched = watched.ok();
        if look.mark && look.place == Place::Source {
            let marked = self.mark(head, must_drain).await;
            if let Ok(marker) = &marked {
                facts.clock = clock(&marker.token, Some(true)).or(facts.clock);
            }
            facts.marker = Some(marked);
        }
    }

    async fn look_at_relationships(&self, look: Look<'_>, facts: &mut Facts) {
        if facts.answers.get(&Call::Export) != Some(&Answer::Allowed) {
            return;
        }
        let at = match (&facts.head, look.place) {
            (Some(head), Place::Source) => Consistency::at_exact(head),
            _ => Consistency::fully_consistent(),
        };
        let (time, most) = match look.place {
            Place::Source => (look.sample, u64::MAX),
            _ => (TARGET_TIME, TARGET_COUNT),
        };
        let bounds = Bounds {
            page: facts.limits.page.known(),
            time,
            relationships: most,
            filter: look.filter,
        };
        let sampled = self.sample(&at, bounds).await;
        if let Err(failure) = &sampled {
            facts
                .answers
                .insert(Call::Export, Answer::of_failure(failure));
        }
        facts.sample = sampled.ok();
    }
}

/// How far the clock of a revision is ahead of this machine's, where it has one.
fn clock(token: &str, is_now: Option<bool>) -> Option<Clock> {
    let revision = zedtoken::decode(token).ok()?.revision;
    let theirs = Duration::from_nanos(revision.time_nanos()?);
    let ours = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    Some(Clock {
        ahead: theirs.as_secs_f64() - ours.as_secs_f64(),
        is_now: is_now.unwrap_or(false),
    })
}

/// The datastore is declared to be another one.
fn contradiction(failure: &CommandError) -> Failure {
    Failure {
        kind: Kind::Config,
        code: None,
        message: failure.message().to_owned(),
        hint: failure.hint_text(),
        limit: None,
        passes: false,
        is_other_key: false,
    }
}
