//! The planned steps, and the calls that each makes of each end.

use crate::finding::Place;

/// Which steps are planned. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Steps {
    /// A copy with writes stopped: spice-migrate plan --fenced, copy, check.
    Copy,
    /// A copy, and a follow until the cutover, while applications write.
    Live,
    /// Also verify --check-sample, and the way back: reverse.
    All,
}

impl Steps {
    /// As it is given.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Live => "live",
            Self::All => "all",
        }
    }

    /// Whether changes are to be followed.
    pub(crate) fn follows(self) -> bool {
        self >= Self::Live
    }
}

/// A call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    ReadSchema,
    DiffSchema,
    ReflectSchema,
    WriteSchema,
    Export,
    Import,
    ReadRelationships,
    WriteRelationships,
    CheckBulk,
    Watch,
}

impl Call {
    /// Its name in the API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ReadSchema => "ReadSchema",
            Self::DiffSchema => "DiffSchema",
            Self::ReflectSchema => "ReflectSchema",
            Self::WriteSchema => "WriteSchema",
            Self::Export => "ExportBulkRelationships",
            Self::Import => "ImportBulkRelationships",
            Self::ReadRelationships => "ReadRelationships",
            Self::WriteRelationships => "WriteRelationships",
            Self::CheckBulk => "CheckBulkPermissions",
            Self::Watch => "Watch",
        }
    }
}

/// Whether the migration fails without a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Must,
    /// Only what is named is not possible then.
    May,
}

/// A call that a step makes of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) place: Place,
    pub(crate) call: Call,
    /// The first of the steps that make it.
    since: Steps,
    pub(crate) level: Level,
    /// What for.
    pub(crate) use_for: &'static str,
}

const fn need(place: Place, call: Call, since: Steps, level: Level, use_for: &'static str) -> Need {
    Need {
        place,
        call,
        since,
        level,
        use_for,
    }
}

/// Every call that the programs of the suite make.
static NEEDS: [Need; 19] = {
    use Level::{May, Must};
    use Place::{Source, Target};
    use Steps::{All, Copy, Live};
    [
        need(
            Source,
            Call::ReadSchema,
            Copy,
            Must,
            "the export reads the schema and the newest revision",
        ),
        need(
            Source,
            Call::DiffSchema,
            Copy,
            Must,
            "the export proves that the schema is that of its revision",
        ),
        need(
            Source,
            Call::ReflectSchema,
            Copy,
            May,
            "the definitions are read with --type and --jobs, by verify --check-sample, and where comments are \
             spelled differently",
        ),
        need(
            Source,
            Call::Export,
            Copy,
            Must,
            "the export reads the relationships",
        ),
        need(
            Source,
            Call::Watch,
            Live,
            Must,
            "follow and cutover read the changes",
        ),
        need(
            Source,
            Call::WriteRelationships,
            Live,
            Must,
            "follow and cutover write markers, which are empty transactions",
        ),
        need(
            Source,
            Call::CheckBulk,
            All,
            May,
            "verify --check-sample asks both ends the same questions",
        ),
        need(
            Source,
            Call::ReadRelationships,
            All,
            May,
            "verify --check-sample reads members of subject sets",
        ),
        need(
            Source,
            Call::WriteSchema,
            All,
            May,
            "reverse writes changes of the target's schema back",
        ),
        need(
            Target,
            Call::ReadSchema,
            Copy,
            Must,
            "the import compares the schemas",
        ),
        need(
            Target,
            Call::DiffSchema,
            Copy,
            Must,
            "the import and verify compare the schemas",
        ),
        need(
            Target,
            Call::ReflectSchema,
            Copy,
            May,
            "the newest revision is read without a schema, and the definitions as at the source",
        ),
        need(
            Target,
            Call::WriteSchema,
            Copy,
            Must,
            "the import writes the source's schema, and follow its changes",
        ),
        need(
            Target,
            Call::Export,
            Copy,
            Must,
            "the import reads whether the target is empty, and the comparison reads what it holds",
        ),
        need(
            Target,
            Call::Import,
            Copy,
            Must,
            "the import loads the relationships",
        ),
        need(
            Target,
            Call::WriteRelationships,
            Copy,
            Must,
            "the import writes a marker and resolves conflicts, and follow writes the changes",
        ),
        need(
            Target,
            Call::Watch,
            All,
            May,
            "reverse reads what is written to the target after the switch",
        ),
        need(
            Target,
            Call::CheckBulk,
            All,
            May,
            "verify --check-sample asks both ends the same questions",
        ),
        need(
            Target,
            Call::ReadRelationships,
            All,
            May,
            "verify --check-sample reads members of subject sets",
        ),
    ]
};

/// The calls that the planned steps make of an end.
pub(crate) fn needs(place: Place, steps: Steps) -> impl Iterator<Item = &'static Need> {
    NEEDS
        .iter()
        .filter(move |need| need.place == place && need.since <= steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(place: Place, steps: Steps) -> Vec<&'static str> {
        needs(place, steps).map(|need| need.call.name()).collect()
    }

    #[test]
    fn copy_reads_the_source_and_writes_the_target() {
        let source = calls(Place::Source, Steps::Copy);
        assert!(source.contains(&"ExportBulkRelationships"));
        assert!(!source.contains(&"Watch"));
        assert!(!source.iter().any(|name| name.starts_with("Write")));
        let target = calls(Place::Target, Steps::Copy);
        for name in [
            "WriteSchema",
            "WriteRelationships",
            "ImportBulkRelationships",
        ] {
            assert!(target.contains(&name), "{name}");
        }
    }

    #[test]
    fn each_set_of_steps_includes_the_one_before() {
        for place in [Place::Source, Place::Target] {
            let counts =
                [Steps::Copy, Steps::Live, Steps::All].map(|steps| calls(place, steps).len());
            assert!(counts.is_sorted(), "{counts:?}");
        }
        let live = calls(Place::Source, Steps::Live);
        assert!(live.contains(&"Watch") && live.contains(&"WriteRelationships"));
    }

    #[test]
    fn no_call_is_listed_twice() {
        for place in [Place::Source, Place::Target] {
            let mut all = calls(place, Steps::All);
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count);
        }
    }
}
