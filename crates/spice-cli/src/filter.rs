//! Which relationships of a server are read: `--type` and `--resource-prefix`.

use spice_record::record::Filter;

use crate::CommandError;
use crate::values::parse_id_prefix;

/// `--type` and `--resource-prefix`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FilterArgs {
    /// Only relationships of resources of this type; may be given several times.
    #[arg(long = "type", value_name = "DEFINITION")]
    pub types: Vec<String>,
    /// Only relationships of resources whose id begins like this.
    #[arg(long, value_name = "PREFIX", value_parser = parse_id_prefix)]
    pub resource_prefix: Option<String>,
}

impl FilterArgs {
    /// The filter, if there is one. The order in which types were given does not matter.
    #[must_use]
    pub fn filter(&self) -> Option<Filter> {
        if self.types.is_empty() && self.resource_prefix.is_none() {
            return None;
        }
        let mut types = self.types.clone();
        types.sort();
        types.dedup();
        Some(Filter {
            types,
            resource_prefix: self.resource_prefix.clone(),
        })
    }

    /// Checks the types. A server takes an unknown one for one without relationships. `known` are the definitions
    /// of its schema.
    ///
    /// # Errors
    ///
    /// Exit 2 for a type that is none of them.
    pub fn check_types(&self, known: &[String]) -> Result<(), CommandError> {
        match self.types.iter().find(|name| !known.contains(name)) {
            None => Ok(()),
            Some(unknown) => Err(CommandError::usage(format!(
                "--type {unknown}: the schema has no such definition"
            ))
            .hint(match known.is_empty() {
                true => "it has none".to_owned(),
                false => format!("it has: {}", known.join(", ")),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::FilterArgs;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        filter: FilterArgs,
    }

    fn parse(flags: &[&str]) -> Result<Flags, clap::Error> {
        Flags::try_parse_from([&["x"], flags].concat())
    }

    #[test]
    fn order_and_repetition_of_types_make_no_other_filter() {
        let filter = |flags: &[&str]| parse(flags).unwrap().filter.filter();
        let one = filter(&["--type", "b", "--type", "a", "--type", "b"]);
        assert_eq!(one, filter(&["--type", "a", "--type", "b"]));
        assert_ne!(one, filter(&["--type", "a"]));
        let prefixed = filter(&["--type", "a", "--resource-prefix", "x"]);
        assert_ne!(prefixed, filter(&["--type", "a"]));
        assert_eq!(filter(&[]), None);
    }

    #[test]
    fn type_that_the_schema_does_not_have_is_refused_with_those_it_has() {
        let filter = parse(&["--type", "item", "--type", "itme"]).unwrap().filter;
        let known = ["item", "user"].map(str::to_owned);
        let refused = filter.check_types(&known).unwrap_err();
        assert!(refused.message().contains("itme"), "{refused:?}");
        assert_eq!(refused.hint_text(), "it has: item, user");
        let refused = filter.check_types(&[]).unwrap_err();
        assert_eq!(refused.hint_text(), "it has none");
        let filter = parse(&["--type", "item"]).unwrap().filter;
        assert!(filter.check_types(&known).is_ok());
    }

    #[test]
    fn prefix_that_no_id_has_is_refused() {
        for text in ["", "a%", "a.b"] {
            assert!(parse(&["--resource-prefix", text]).is_err(), "{text:?}");
        }
        assert!(parse(&["--resource-prefix", "-"]).is_ok());
    }
}
