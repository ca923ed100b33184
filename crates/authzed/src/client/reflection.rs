//! Compares our descriptors with a server's: a field that we do not know is data that we would drop.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MethodDescriptorProto,
};
use tokio::time::timeout;

use super::Client;
use crate::error::Error;
use crate::generated::FILE_DESCRIPTOR_SET;
use crate::generated::reflection::ServerReflectionRequest;
use crate::generated::reflection::server_reflection_client::ServerReflectionClient;
use crate::generated::reflection::server_reflection_request::MessageRequest;
use crate::generated::reflection::server_reflection_response::MessageResponse;
use crate::stream::ResponseStream;

pub(crate) const RPC: &str = "ServerReflectionInfo";

/// The package whose messages hold data; the others are gRPC's and protobuf's own.
const PACKAGE: &str = "authzed.api.v1";

/// How a server's API differs from the one that this crate was built for.
///
/// An element is a service, method, message, field, enum or enum value by its full name, such as
/// `authzed.api.v1.Relationship.optional_expires_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// We use it, and the server does not have it: an older server, or a service switched off.
    Missing {
        /// Its full name.
        element: String,
    },
    /// The server has it in something that we read or write, and we do not know it: a newer server.
    /// What it holds would be dropped.
    Unknown {
        /// Its full name.
        element: String,
    },
    /// Both know it, as different things.
    Changed {
        /// Its full name.
        element: String,
        /// What it is here: number, type and label of a field, or the types of a method.
        ours: String,
        /// What it is at the server.
        theirs: String,
    },
}

impl Difference {
    /// The full name of what differs.
    #[must_use]
    pub fn element(&self) -> &str {
        match self {
            Self::Missing { element }
            | Self::Unknown { element }
            | Self::Changed { element, .. } => element,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { element } => write!(f, "{element}: the server does not have it"),
            Self::Unknown { element } => {
                write!(
                    f,
                    "{element}: only the server has it; what it holds would be dropped"
                )
            }
            Self::Changed {
                element,
                ours,
                theirs,
            } => {
                write!(f, "{element}: {ours} here, {theirs} at the server")
            }
        }
    }
}

/// Compares all of SpiceDB's API in `proto/` with the descriptors of the server: the services and
/// methods that we call, and each message, field and enum value. No difference means that nothing
/// is lost on the way.
///
/// # Errors
///
/// [`Kind::Unimplemented`](crate::Kind::Unimplemented) where the server has no reflection.
pub async fn compare_descriptors(client: &Client) -> Result<Vec<Difference>, Error> {
    let ours = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)
        .map_err(|_| client.malformed(RPC, "our own descriptors cannot be decoded"))?;
    let ours = elements(&ours.file);

    let served = client.services().await?;
    let mut theirs = BTreeMap::new();
    for service in ours
        .iter()
        .filter(|(_, what)| *what == SERVICE)
        .map(|(name, _)| name)
    {
        // A server can describe services that it does not serve.
        let files = client.file_descriptor(service).await?.unwrap_or_default();
        theirs.extend(elements(&files));
        if !served.contains(service) {
            theirs.remove(service);
        }
    }
    Ok(compare(&ours, &theirs))
}

impl Client {
    /// The full names of the services that the server serves. Needs no token.
    ///
    /// # Errors
    ///
    /// [`Kind::Unimplemented`](crate::Kind::Unimplemented) where the server has no reflection.
    pub async fn services(&self) -> Result<Vec<String>, Error> {
        match self
            .reflect(MessageRequest::ListServices(String::new()))
            .await?
        {
            MessageResponse::ListServicesResponse(list) => Ok(list
                .service
                .into_iter()
                .map(|service| service.name)
                .collect()),
            _ => Err(self.malformed(RPC, "no list of services in the answer")),
        }
    }

    /// The descriptors of the file that has the symbol, a message or service by its full name, and
    /// of the files that it imports; `None` where the server does not know the symbol. Needs no
    /// token.
    ///
    /// # Errors
    ///
    /// [`Kind::Unimplemented`](crate::Kind::Unimplemented) where the server has no reflection.
    pub async fn file_descriptor(
        &self,
        symbol: &str,
    ) -> Result<Option<Vec<FileDescriptorProto>>, Error> {
        let request = MessageRequest::FileContainingSymbol(symbol.to_owned());
        let files = match self.reflect(request).await? {
            MessageResponse::FileDescriptorResponse(files) => files.file_descriptor_proto,
            MessageResponse::ErrorResponse(error)
                if error.error_code == tonic::Code::NotFound as i32 =>
            {
                return Ok(None);
            }
            _ => return Err(self.malformed(RPC, "no descriptor in the answer")),
        };
        let files: Result<_, _> = files
            .iter()
            .map(|file| FileDescriptorProto::decode(file.as_slice()))
            .collect();
        files
            .map(Some)
            .map_err(|_| self.malformed(RPC, "a descriptor that cannot be decoded"))
    }

    async fn reflect(&self, request: MessageRequest) -> Result<MessageResponse, Error> {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        };
        let mut service = ServerReflectionClient::new(self.transport());
        let mut responses = ResponseStream::new(RPC, self.name(), async move {
            service
                .server_reflection_info(futures::stream::iter([request]))
                .await
        });
        timeout(self.timeout(), responses.message())
            .await
            .map_err(|_| self.deadline(RPC))??
            .and_then(|response| response.message_response)
            .ok_or_else(|| self.malformed(RPC, "an empty answer"))
    }
}

/// What the elements of a file are, by full name.
type Elements = BTreeMap<String, String>;

const SERVICE: &str = "service";

/// The full names of all elements of a file.
pub(crate) fn names(files: &[FileDescriptorProto]) -> impl Iterator<Item = String> {
    elements(files).into_keys()
}

fn elements(files: &[FileDescriptorProto]) -> Elements {
    let mut found = Elements::new();
    for file in files.iter().filter(|file| file.package() == PACKAGE) {
        for message in &file.message_type {
            add_message(&mut found, PACKAGE, message);
        }
        for enumeration in &file.enum_type {
            add_enum(&mut found, PACKAGE, enumeration);
        }
        for service in &file.service {
            let name = format!("{PACKAGE}.{}", service.name());
            for method in &service.method {
                found.insert(format!("{name}.{}", method.name()), signature(method));
            }
            found.insert(name, SERVICE.to_owned());
        }
    }
    found
}

fn add_message(found: &mut Elements, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        found.insert(
            format!("{name}.{}", field.name()),
            description(message, field),
        );
    }
    for nested in &message.nested_type {
        add_message(found, &name, nested);
    }
    for enumeration in &message.enum_type {
        add_enum(found, &name, enumeration);
    }
    found.insert(name, "message".to_owned());
}

fn add_enum(found: &mut Elements, scope: &str, enumeration: &EnumDescriptorProto) {
    let name = format!("{scope}.{}", enumeration.name());
    for value in &enumeration.value {
        found.insert(
            format!("{name}.{}", value.name()),
            format!("value {}", value.number()),
        );
    }
    found.insert(name, "enum".to_owned());
}

/// Number, label, type and, where it has one, the oneof of a field.
fn description(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let label = match field.label() {
        Label::Repeated => "repeated ",
        Label::Required => "required ",
        Label::Optional if field.proto3_optional() => "optional ",
        Label::Optional => "",
    };
    let kind = match field.r#type() {
        Type::Message | Type::Enum | Type::Group => {
            field.type_name().trim_start_matches('.').to_owned()
        }
        scalar => scalar
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
    };
    let oneof = field
        .oneof_index
        .filter(|_| !field.proto3_optional())
        .and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?))
        .map(|oneof| format!(" in oneof {}", oneof.name()))
        .unwrap_or_default();
    format!("field {}, {label}{kind}{oneof}", field.number())
}

fn signature(method: &MethodDescriptorProto) -> String {
    let side = |name: &str, streams: bool| {
        let stream = if streams { "stream " } else { "" };
        format!("({stream}{})", name.trim_start_matches('.'))
    };
    format!(
        "{} returns {}",
        side(method.input_type(), method.client_streaming()),
        side(method.output_type(), method.server_streaming())
    )
}

fn compare(ours: &Elements, theirs: &Elements) -> Vec<Difference> {
    let scope = |element: &str| element.rsplit_once('.').map(|(scope, _)| scope.to_owned());
    let mut differences = Vec::new();
    for (element, ours) in ours {
        match theirs.get(element) {
            Some(theirs) if theirs == ours => {}
            Some(theirs) => differences.push(Difference::Changed {
                element: element.clone(),
                ours: ours.clone(),
                theirs: theirs.clone(),
            }),
            None => differences.push(Difference::Missing {
                element: element.clone(),
            }),
        }
    }
    // Of what we do not know, only that matters which is inside of something that we use: fields of
    // our messages and values of our enums. Methods that we do not call carry nothing.
    for element in theirs.keys().filter(|element| !ours.contains_key(*element)) {
        let known = scope(element)
            .and_then(|scope| ours.get(&scope))
            .map(String::as_str);
        if matches!(known, Some("message" | "enum")) {
            differences.push(Difference::Unknown {
                element: element.clone(),
            });
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn our_files() -> Vec<FileDescriptorProto> {
        FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file
    }

    fn message<'a>(files: &'a mut [FileDescriptorProto], name: &str) -> &'a mut DescriptorProto {
        files
            .iter_mut()
            .flat_map(|file| &mut file.message_type)
            .find(|m| m.name() == name)
            .unwrap()
    }

    fn texts(theirs: &[FileDescriptorProto]) -> Vec<String> {
        let differences = compare(&elements(&our_files()), &elements(theirs));
        differences.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn equal_descriptors_do_not_differ() {
        assert_eq!(texts(&our_files()), [""; 0]);
    }

    #[test]
    fn a_new_field_of_the_server_is_reported() {
        let mut theirs = our_files();
        let new = FieldDescriptorProto {
            name: Some("weight".into()),
            ..Default::default()
        };
        message(&mut theirs, "Relationship").field.push(new);
        assert_eq!(
            texts(&theirs),
            [
                "authzed.api.v1.Relationship.weight: only the server has it; what it holds would be dropped"
            ]
        );
    }

    #[test]
    fn a_missing_or_renumbered_field_of_the_server_is_reported() {
        let mut theirs = our_files();
        let fields = &mut message(&mut theirs, "Relationship").field;
        fields.retain(|field| field.name() != "optional_expires_at");
        fields[1].number = Some(7);
        fields[3].label = Some(Label::Repeated.into());
        assert_eq!(
            texts(&theirs),
            [
                "authzed.api.v1.Relationship.optional_caveat: field 4, \
                 authzed.api.v1.ContextualizedCaveat here, field 4, repeated \
                 authzed.api.v1.ContextualizedCaveat at the server",
                "authzed.api.v1.Relationship.optional_expires_at: the server does not have it",
                "authzed.api.v1.Relationship.relation: field 2, string here, field 7, string at the server",
            ]
        );
    }

    #[test]
    fn messages_and_methods_that_we_do_not_use_are_no_difference() {
        let mut theirs = our_files();
        let file = theirs
            .iter_mut()
            .find(|file| !file.service.is_empty() && file.package() == PACKAGE);
        let file = file.unwrap();
        file.message_type.push(DescriptorProto {
            name: Some("New".into()),
            ..Default::default()
        });
        let method = MethodDescriptorProto {
            name: Some("New".into()),
            ..Default::default()
        };
        file.service[0].method.push(method);
        assert_eq!(texts(&theirs), [""; 0]);
    }
}
