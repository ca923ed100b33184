//! What comes from the suite's shared crate: the only file of this crate that names it.

pub(crate) use spice_pipe::display::escape;
pub(crate) use spice_pipe::log::{LogArgs, also_to};
pub(crate) use spice_pipe::position::PositionFile;
pub(crate) use spice_pipe::run::PARENT_VARIABLE;
pub(crate) use spice_pipe::shutdown::SIGTERM;
pub(crate) use spice_pipe::spool::Spool;
pub(crate) use spice_pipe::{
    Exit, Failure, Program, Shutdown, Stdout, VERSION, files, parse_duration, parse_size,
    parse_timeout, stdio,
};
