//! Single files written on another machine. A file has its name there only once it is whole: where the connection is lost,
//! what reads it there sees an ordinary end.

use std::time::SystemTime;

use super::super::super::command::file_of;
use super::connection::Connection;
use crate::error::Result;
use crate::files::lock;
use crate::sha256;

/// Writes standard input to the file `$1`, whose temporary name `$2` no other sender has, with the mode `$3`, if it has `$4`
/// bytes and the SHA-256 `$5`.
const WRITE: &str = r#"set -e
part=$1.$2.part
trap 'rm -f "$part"' EXIT
trap 'exit 1' HUP INT PIPE TERM
mkdir -p "${1%/*}"
cat >"$part"
bytes=$(($(wc -c <"$part")))
[ "$bytes" -eq "$4" ] || { echo "expected $4 bytes, found $bytes" >&2; exit 1; }
if command -v sha256sum >/dev/null 2>&1; then
    [ "$(sha256sum <"$part" | cut -c 1-64)" = "$5" ] || { echo "the SHA-256 is not that of what was sent" >&2; exit 1; }
fi
chmod "$3" "$part"
mv -f "$part" "$1""#;

/// Whether `$1` is a program of `$2` bytes.
const IS_PROGRAM: &str = r#"[ -x "$1" ] && [ $(($(wc -c <"$1"))) -eq "$2" ]"#;

impl Connection {
    /// Writes the file `to` there with these contents; the `mode` is one of chmod.
    ///
    /// # Errors
    /// It does not arrive whole, with `action` as what was tried; the connection is lost, or a signal arrived.
    pub fn write_file(&self, action: &'static str, to: &str, mode: &str, contents: &[u8]) -> Result<()> {
        let sender = format!("{}:{}:{:?}", lock::host(), std::process::id(), SystemTime::now());
        let (own, bytes, hash) =
            (&sha256::of(sender.as_bytes())[..12], contents.len().to_string(), sha256::of(contents));
        let words = ["sh", "-c", WRITE, "sh", to, own, mode, &bytes, &hash];
        self.succeed(action, &words, file_of(contents)?.into()).map(drop)
    }

    /// Whether there is a program of so many bytes.
    ///
    /// # Errors
    /// The connection is lost, or a signal arrived.
    pub fn has_program(&self, path: &str, bytes: usize) -> Result<bool> {
        Ok(self.output(&["sh", "-c", IS_PROGRAM, "sh", path, &bytes.to_string()])?.success)
    }
}
