//! What may be the name of an entry, and what is wrong with one that may not.

/// Longest name between two slashes: that of Linux.
const MAX_NAME: usize = 255;

/// Longest path, and longest target of a link. Linux takes 4095 bytes; the rest is left for the directories above.
const MAX_PATH: usize = 3072;

/// Why an entry is refused.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its name is empty or leads nowhere.
    #[error("its name is empty")]
    Empty,
    /// Its name begins with `/`.
    #[error("its path is absolute; paths are relative to the function's directory")]
    Absolute,
    /// Its name holds `..`.
    #[error("its path has a `..`; an entry must stay inside the function's directory")]
    Climbs,
    /// Its name is no UTF-8.
    #[error("its name is not UTF-8; rename it")]
    NotUtf8,
    /// Its name has a character that no name needs.
    #[error("its name has a control character or a backslash; rename it")]
    BadCharacter,
    /// A part of its name is too long.
    #[error("a name in it has more than {MAX_NAME} bytes; shorten it")]
    LongName,
    /// Its path is too long.
    #[error("its path or link target has more than {MAX_PATH} bytes; shorten it")]
    LongPath,
    /// Another entry has the same name.
    #[error("the name is there twice; one of them must go")]
    Duplicate,
    /// A directory above it is a link or a file.
    #[error("it lies below something that is not a directory, but a link or a file")]
    BelowNoDirectory,
    /// A hard link.
    #[error("it is a hard link; pack the file itself")]
    HardLink,
    /// A device, pipe or socket.
    #[error("it is a device, a pipe or a socket; only files, directories and symbolic links can be deployed")]
    Special,
    /// A sparse file.
    #[error("it is stored as a sparse file; pack it without --sparse")]
    Sparse,
    /// Something that tar knows and runlet does not.
    #[error("it is neither a file nor a directory nor a symbolic link")]
    UnknownType,
    /// A link out of the directory.
    #[error("it is a symbolic link that leaves the function's directory; copy what it points to, or link relatively")]
    LinkLeaves,
    /// Links that point at one another.
    #[error("it is a symbolic link that leads in a circle, or over too many links")]
    LinkLoop,
}

/// The path that a raw name stands for, with `.` and doubled slashes gone; `None` for the directory itself.
pub(super) fn path(raw: &[u8]) -> Result<Option<String>, Fault> {
    let text = text(raw)?;
    if text.starts_with('/') {
        return Err(Fault::Absolute);
    }
    let mut path = String::with_capacity(text.len());
    for part in text.split('/') {
        match part {
            "" | "." => continue,
            ".." => return Err(Fault::Climbs),
            _ if part.len() > MAX_NAME => return Err(Fault::LongName),
            _ => {}
        }
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(part);
    }
    Ok(Some(path).filter(|path| !path.is_empty()))
}

/// The target of a link, as text. Whether it stays inside, only the whole tree can tell.
pub(super) fn target(raw: &[u8]) -> Result<String, Fault> {
    let text = text(raw)?;
    if text.starts_with('/') { Err(Fault::LinkLeaves) } else { Ok(text.to_owned()) }
}

fn text(raw: &[u8]) -> Result<&str, Fault> {
    if raw.is_empty() {
        return Err(Fault::Empty);
    }
    if raw.len() > MAX_PATH {
        return Err(Fault::LongPath);
    }
    let text = std::str::from_utf8(raw).map_err(|_| Fault::NotUtf8)?;
    if text.chars().any(|c| c.is_control() || c == '\\') { Err(Fault::BadCharacter) } else { Ok(text) }
}

/// A raw name for an error message: short, and without anything that a terminal would obey.
pub(super) fn shown(raw: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(raw).escape_debug().take(160).collect();
    if text.len() < raw.len() { text + "..." } else { text }
}
