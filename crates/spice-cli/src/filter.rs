//! Which relationships of a server are read: `--type` and `--resource-prefix`.

use spice_record::record::Filter;

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
    fn prefix_that_no_id_has_is_refused() {
        for text in ["", "a%", "a.b"] {
            assert!(parse(&["--resource-prefix", text]).is_err(), "{text:?}");
        }
        assert!(parse(&["--resource-prefix", "-"]).is_ok());
    }
}
