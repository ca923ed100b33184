//! What comes from the suite's shared crates: the only file of this crate that names them.

pub(crate) use authzed::zedtoken;
pub(crate) use spice_cli::display::escape;
pub(crate) use spice_cli::filter::FilterArgs;
pub(crate) use spice_cli::log::{LogArgs, also_to};
pub(crate) use spice_cli::quote::quoted;
pub(crate) use spice_cli::run::PARENT_VARIABLE;
pub(crate) use spice_cli::shutdown::SIGTERM;
pub(crate) use spice_cli::values::{parse_duration, parse_size, parse_timeout};
pub(crate) use spice_cli::{
    CommandError, EXIT_CODES, Exit, Program, Shutdown, Stdout, VERSION, files, fsync, stdio,
};
pub(crate) use spice_spool::Spool;
pub(crate) use spice_spool::position::PositionFile;

/// The result of a part of a step.
pub(crate) type Outcome<T = ()> = Result<T, CommandError>;
