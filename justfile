# `just check` is what a change must pass, cheapest first. `just ci` is what CI runs: the same and more.
# Both need cargo-deny. `just ci` also needs nm, Valgrind and strace; `just gpu` a Vulkan driver (Mesa's software driver will do).

set shell := ["bash", "-euo", "pipefail", "-c"]

# One set of features for lint, documentation, `alone` and GPU tests, so that dependencies are checked once: that takes minutes.
everything := "--all-features"

check: format deny lint docs test

ci: static dynamic

# What only looks at the code and the program's file.
static: format deny lint docs alone inlined

# What runs the program. CI has no time to build Burn and its GPU backend for tests: that is `just gpu`, by hand. The lints of
# `static` compile all of that code.
dynamic: memory races images test

format:
    cargo fmt --check

# Licences, sources and versions of the dependencies. Needs no network.
deny:
    cargo deny --locked --all-features check bans licenses sources

# Known security problems of the dependencies. Needs the network, so it is not part of CI; run it before a release.
advisories:
    cargo deny --all-features check advisories

lint:
    cargo clippy --release --all-targets --locked {{everything}} -- -D warnings

docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps --locked --quiet {{everything}}

# build/ alone, copied elsewhere, as a container build sees it.
alone:
    #!/usr/bin/env bash
    set -euo pipefail
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    cp -r build/. "$copy"
    target=$PWD/target
    cd "$copy" && cargo check --release --locked --quiet {{everything}} --target-dir "$target"

# No vector instruction of ours is a function call. A kernel must be inlined as a whole into the function that enables its
# instructions. A closure that the compiler leaves in a function of its own is several times slower and still right, so no
# other test notices. (The f16c functions are Burn's.)
inlined:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release --locked
    if nm -C target/release/mnist | grep -E 'core_arch::x86::(avx|avx2|avx512f|fma)::'; then
        echo "these functions are not inlined; look for iterators with closures in build/src/engine/fused" >&2
        exit 1
    fi

# Tiny trainings under Valgrind. Memcheck finds accesses out of bounds and results that depend on memory nobody has written;
# helgrind finds accesses of two threads that no barrier orders.
memory:
    cargo test --release --locked --lib --config "target.'cfg(all())'.runner='valgrind --quiet --error-exitcode=9'" \
        -- valgrind_ simd::tests
    cargo test --release --locked --lib \
        --config "target.'cfg(all())'.runner='valgrind --quiet --error-exitcode=9 --tool=helgrind --suppressions=tests/helgrind.supp'" \
        -- valgrind_ --test-threads=1

# The barrier itself under ThreadSanitizer, which knows memory orders; helgrind is told to trust the barrier. The same barrier
# without memory orders must fail. Sanitizers are unstable options of rustc, hence RUSTC_BOOTSTRAP; the file is built alone, in seconds.
races:
    #!/usr/bin/env bash
    set -euo pipefail
    build() {
        RUSTC_BOOTSTRAP=1 rustc --edition 2024 -O -g -A dead_code -Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer \
            "$1" -o "$2"
    }
    mkdir -p target
    build tests/races.rs target/races
    target/races
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    mkdir -p "$copy/tests" "$copy/build/src/engine/fused"
    cp tests/races.rs "$copy/tests"
    sed -E 's/Ordering::(AcqRel|Acquire|Release|SeqCst)/Ordering::Relaxed/' build/src/engine/fused/barrier.rs \
        >"$copy/build/src/engine/fused/barrier.rs"
    build "$copy/tests/races.rs" target/races-broken
    if timeout 60 target/races-broken >target/races-broken.log 2>&1 || ! grep -q 'data race' target/races-broken.log; then
        echo "ThreadSanitizer did not object to a barrier without memory orders" >&2
        exit 1
    fi
    echo "no data race; the broken barrier has one, as it must"

# The wheel and the release archive, into dist/. See docs/install.md.
wheel:
    python3 .ci/release.py wheel

archive:
    python3 .ci/release.py archive

# The archive of this commit, built twice, in two directories, from nothing: it must have the same bytes.
reproducible:
    #!/usr/bin/env bash
    set -euo pipefail
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    for copy in one another/place; do
        git clone --quiet . "$scratch/$copy"
        python3 "$scratch/$copy/.ci/release.py" archive
    done
    cmp "$scratch"/one/dist/*.tar.gz "$scratch"/another/place/dist/*.tar.gz

# The test command of CONTRIBUTING.md.
test:
    mkdir -p target
    cargo test --release --locked 2>&1 | tee target/tests.log
    # Warnings with the usual features end it: `lint` compiles all features alone.
    ! grep -E '^warning: `mnist` .* generated' target/tests.log

# GPUs, and every engine against the reference once more, with Burn's second CPU backend. The dependencies are optimized less:
# at level 3 they take longer than everything else here, and at level 0 they compile kernels so slowly that the tests do.
# The unit tests of the engines come first.
gpu *flags:
    #!/usr/bin/env bash
    set -euo pipefail
    mkdir -p target
    quick=(--release --locked {{everything}} --config 'profile.release.package."*".opt-level=1')
    cargo test "${quick[@]}" --lib -- engine:: 2>&1 | tee target/tests-features.log
    cargo test "${quick[@]}" --test main -- {{flags}} engines_agree:: gpu:: 2>&1 \
        | tee -a target/tests-features.log

# The images that the container tests use, where MNIST_TEST_SIF says where the one for Singularity goes. Both are built at
# once, since each leaves a processor idle now and then.
images:
    #!/usr/bin/env bash
    set -euo pipefail
    if [ -z "${MNIST_TEST_SIF:-}" ]; then
        echo "skipped: images for the container tests; set MNIST_TEST_SIF to the file that the Singularity image goes to"
        exit 0
    fi
    cargo build --release --locked
    cp target/release/mnist target/runner
    printf '%s\n' 'schema_version: 1.0.0' 'schema_type: mlcube_singularity' "image: $MNIST_TEST_SIF" >target/sif.yaml
    target/runner cube configure --platform=target/sif.yaml >target/sif.log 2>&1 & building=$!
    target/runner cube configure --platform=platforms/docker.yaml 2>&1 | tail -n 5
    wait "$building" || { tail -n 40 target/sif.log; exit 1; }
    ls -l "$MNIST_TEST_SIF"

# The benchmark runs, on the data set in MNIST_TEST_DATA. On a machine with other work its figures mean nothing. By hand, after
# a change of bench/: it builds the program once more, which CI has no time for.
bench:
    #!/usr/bin/env bash
    set -euo pipefail
    if [ -z "${MNIST_TEST_DATA:-}" ]; then
        echo "skipped: the benchmark; set MNIST_TEST_DATA to a directory with the real MNIST"
        exit 0
    fi
    python3 bench/run.py --data_dir="$MNIST_TEST_DATA" --only=limits,process,threads --out=target/bench 2>&1 | tail -n 20
