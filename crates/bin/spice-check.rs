fn main() -> std::process::ExitCode {
    spice_pipe::main::<spice_check::Check>()
}
