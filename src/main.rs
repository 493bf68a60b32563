//! The `swapstream` program: hands the command line to the library.

/// Serves C libraries too. What librdkafka allocates on its threads the workers free, and the other
/// way round, event by event; the C library's allocator takes a lock for each of those
/// (docs/performance.md, "Allocators").
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    swapstream::cli::main()
}
