fn main() -> std::process::ExitCode {
    spice_pipe::main::<spice_migrate::Migrate>()
}
