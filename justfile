# What a change must pass, cheapest first. `just check` needs `just` and `cargo-deny`; .ci/run does the same and more.

check: format lint test docs deny

format:
    cargo fmt --check

lint:
    cargo clippy --release --all-targets -- -D warnings
    cargo clippy --release --all-targets --all-features -- -D warnings

# The test command of the README.
test:
    cargo test --release

docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps

deny:
    cargo deny --all-features check

# GPUs, and every engine against the reference once more, with Burn's second CPU backend.
gpu:
    cargo test --release --features gpu,ndarray --test main -- engines_agree:: gpu::
