//! What bit equality depends on besides the model: build, runtime and CPU features.

/// Names the build, the runtime and the CPU features that its kernels are chosen by. Two instances
/// with the same fingerprint give the same bits.
pub fn fingerprint() -> String {
    let mut parts = vec![
        format!("swapstream-{}", env!("CARGO_PKG_VERSION")),
        "tract-0.23".to_owned(),
        std::env::consts::ARCH.to_owned(),
    ];
    parts.extend(features());
    if super::ops::fused() {
        parts.push("fused".to_owned());
    }
    parts.join(" ")
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<String> {
    let known = [
        ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        (
            "avx512vnni",
            std::arch::is_x86_feature_detected!("avx512vnni"),
        ),
    ];
    known
        .into_iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<String> {
    Vec::new()
}
