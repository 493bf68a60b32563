//! The `swapstream` program: hands the command line to the library.

fn main() -> std::process::ExitCode {
    swapstream::cli::main()
}
