fn main() -> std::process::ExitCode {
    spice_cli::main::<spice_preflight::Preflight>()
}
