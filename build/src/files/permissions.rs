//! Who may read, write and execute a file, where the system knows such: the lowest nine bits of its mode.

use std::fs::Metadata;
use std::path::Path;

use crate::error::Result;

/// The mode of what was `found`.
pub fn mode(found: &Metadata) -> u32 {
    #[cfg(unix)]
    return std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777;
    #[cfg(not(unix))]
    {
        let _ = found;
        0o644
    }
}

/// Lets those of `mode` read, write and execute `path`. Nothing happens on a file system that has no modes.
///
/// # Errors
/// The operating system refuses.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    #[cfg(unix)]
    {
        use std::fs;
        use std::os::unix::fs::PermissionsExt;

        use crate::error::Error;

        let found = path.metadata().map_err(Error::io("read", path))?;
        // A directory may pass its group on.
        let permissions = fs::Permissions::from_mode(found.permissions().mode() & 0o7000 | mode & 0o777);
        match fs::set_permissions(path, permissions) {
            Err(error) if !super::is_unsupported(&error) => {
                return Err(Error::io("set the permissions of", path)(error));
            }
            _ => {}
        }
    }
    #[cfg(not(unix))]
    let _ = (path, mode);
    Ok(())
}
