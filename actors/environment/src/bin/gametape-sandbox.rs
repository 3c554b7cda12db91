//! The last step inside a sandbox; see `gametape_environment::inner`. A program of its
//! own, so that it needs nothing inside but the C library.

fn main() -> std::process::ExitCode {
    gametape_environment::inner::main()
}
