//! A question to a server and its answer: SpiceDB's CheckBulkPermissionsPair as proto3 JSON.

use std::borrow::Cow;
use std::fmt;

use authzed::v1::CheckBulkPermissionsRequestItem;
use serde::de::Deserializer;
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};

use crate::context::ContextJson;
use crate::relationship::{ObjectJson, SubjectJson};

/// A question and what a server answered: SpiceDB's CheckBulkPermissionsPair. Where two servers
/// disagree, it also has the other one's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "CheckJson")]
pub struct Check {
    /// What was asked.
    pub request: Question,
    /// What the first server answered.
    #[serde(flatten)]
    pub answer: Answer,
    /// What the second one answered, if that is something else.
    #[serde(
        rename = "otherServer",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub other_server: Option<Answer>,
    /// Whether the two answers do not show if the servers disagree: see [`Comparison::Inconclusive`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inconclusive: bool,
}

/// As it is read: serde would take the first of two answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckJson {
    request: Question,
    item: Option<Item>,
    error: Option<Fault>,
    #[serde(rename = "otherServer")]
    other_server: Option<Answer>,
    #[serde(default)]
    inconclusive: bool,
}

impl TryFrom<CheckJson> for Check {
    type Error = &'static str;

    fn try_from(json: CheckJson) -> Result<Self, Self::Error> {
        let answer = match (json.item, json.error) {
            (Some(item), None) => Answer::Item(item),
            (None, Some(fault)) => Answer::Error(fault),
            (Some(_), Some(_)) => return Err("check with both an item and an error"),
            (None, None) => return Err("check with neither an item nor an error"),
        };
        Ok(Self {
            request: json.request,
            answer,
            other_server: json.other_server,
            inconclusive: json.inconclusive,
        })
    }
}

/// An answer, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// SpiceDB's CheckBulkPermissionsResponseItem.
    Item(Item),
    /// Its google.rpc.Status: this question cannot be answered.
    Error(Fault),
}

/// Whether the subject has the permission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Item {
    /// Yes, no, or that depends.
    pub permissionship: Permissionship,
    /// On what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial_caveat_info: Option<Missing>,
}

/// What an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Missing {
    /// Names of caveat parameters that have no value, sorted.
    pub missing_required_context: Vec<String>,
}

/// SpiceDB's enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Permissionship {
    /// No.
    #[serde(rename = "PERMISSIONSHIP_NO_PERMISSION")]
    No,
    /// Yes.
    #[serde(rename = "PERMISSIONSHIP_HAS_PERMISSION")]
    Yes,
    /// It depends on caveats whose context was not given.
    #[serde(rename = "PERMISSIONSHIP_CONDITIONAL_PERMISSION")]
    Conditional,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The gRPC code.
    pub code: i32,
    /// The server's message.
    #[serde(default)]
    pub message: String,
    /// The reason of its google.rpc.ErrorInfo without the prefix `ERROR_REASON_`, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Fault {
    /// Whether the server followed the data as deep as it may and gave up. That shows nothing about the
    /// subject: of data with cycles the same server answers yes at one time and gives up at another,
    /// whichever branch it comes to first (measured with SpiceDB v1.56: 2 to 16 of 40 times).
    #[must_use]
    pub fn is_too_deep(&self) -> bool {
        self.reason.as_deref() == Some(authzed::MAXIMUM_DEPTH_EXCEEDED)
    }
}

/// What two answers to the same question say about the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// They give the same answer.
    Alike,
    /// They give different ones.
    Different,
    /// One of the two gave up at its maximum depth, so there is nothing to compare.
    Inconclusive,
}

impl Answer {
    /// Compares it with the other server's. Of an error only the code counts, because its message names
    /// servers; of two that gave up not even that, because it depends on the version.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Comparison {
        let equal = match (self, other) {
            (one, other) if one.is_too_deep() && other.is_too_deep() => true,
            (one, other) if one.is_too_deep() || other.is_too_deep() => {
                return Comparison::Inconclusive;
            }
            (Self::Item(one), Self::Item(other)) => one == other,
            (Self::Error(one), Self::Error(other)) => one.code == other.code,
            _ => false,
        };
        if equal {
            Comparison::Alike
        } else {
            Comparison::Different
        }
    }

    /// Whether the server gave up, as [`Fault::is_too_deep`].
    #[must_use]
    pub fn is_too_deep(&self) -> bool {
        matches!(self, Self::Error(fault) if fault.is_too_deep())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item(item) => {
                f.write_str(match item.permissionship {
                    Permissionship::No => "no",
                    Permissionship::Yes => "yes",
                    Permissionship::Conditional => "conditional",
                })?;
                match &item.partial_caveat_info {
                    Some(missing) => {
                        let names = missing.missing_required_context.join(", ");
                        let names: String = names.chars().take(200).collect();
                        write!(f, " (missing: {names})")
                    }
                    None => Ok(()),
                }
            }
            Self::Error(fault) => {
                // For people: enough to recognise it.
                let message: String = fault.message.chars().take(200).collect();
                write!(f, "error {} ({message})", fault.code)
            }
        }
    }
}

/// What is asked: a wrapper, because neither serde nor the message is ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Question(pub CheckBulkPermissionsRequestItem);

/// As `document:readme#view@user:ann`. The context is left out, as in other messages.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = |object: Option<&authzed::v1::ObjectReference>| {
            object.map_or_else(
                || "?".to_owned(),
                |object| format!("{}:{}", object.object_type, object.object_id),
            )
        };
        let subject = self.0.subject.as_ref();
        let resource = object(self.0.resource.as_ref());
        let of = object(subject.and_then(|subject| subject.object.as_ref()));
        write!(f, "{resource}#{}@{of}", self.0.permission)?;
        match subject.map(|subject| subject.optional_relation.as_str()) {
            None | Some("") => {}
            Some(relation) => write!(f, "#{relation}")?,
        }
        match self.0.context {
            Some(_) => f.write_str(" with a context"),
            None => Ok(()),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuestionJson<'a> {
    resource: ObjectJson<'a>,
    permission: Cow<'a, str>,
    subject: SubjectJson<'a>,
    #[serde(default, skip_serializing_if = "ContextJson::is_empty")]
    context: ContextJson<'a>,
}

impl Serialize for Question {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (Some(resource), Some(subject)) = (&self.0.resource, &self.0.subject) else {
            return Err(S::Error::custom("check without a resource or a subject"));
        };
        QuestionJson {
            resource: resource.into(),
            permission: Cow::Borrowed(&self.0.permission),
            subject: subject.try_into().map_err(S::Error::custom)?,
            context: ContextJson(self.0.context.as_ref().map(Cow::Borrowed)),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Question {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = QuestionJson::deserialize(deserializer)?;
        Ok(Self(CheckBulkPermissionsRequestItem {
            resource: Some(json.resource.into()),
            permission: json.permission.into_owned(),
            subject: Some(json.subject.into()),
            context: json.context.0.map(Cow::into_owned),
        }))
    }
}
