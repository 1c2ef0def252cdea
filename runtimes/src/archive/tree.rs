//! A directory in memory, and the rules that a function's directory keeps.
//!
//! Whatever is in a tree has a name that stays inside, once, below directories only. [`Tree::check_links`] then
//! shows the same of symbolic links, followed as the kernel would.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::entry::{self, Fault};
use super::{ArchiveError, MAX_ENTRIES};

/// Links that the kernel follows in one path.
const MAX_LINKS: u32 = 40;

/// Steps that all links of a tree may take together: bounds the time that a hostile tree can cost.
const MAX_STEPS: u32 = 1_000_000;

/// Something in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node<'a> {
    Dir,
    File { body: Cow<'a, [u8]>, executable: bool },
    Link { target: String },
}

/// A file, found by its path.
#[derive(Debug, Clone, Copy)]
pub(super) struct File<'t> {
    pub(super) body: &'t [u8],
    pub(super) executable: bool,
}

/// A directory with everything below it, by path. Directories come before what is in them.
#[derive(Debug, Default)]
pub(super) struct Tree<'a> {
    nodes: BTreeMap<String, Node<'a>>,
}

impl<'a> Tree<'a> {
    /// Puts `node` at the place that `raw` names; directories above it are made.
    pub(super) fn insert(&mut self, raw: &[u8], node: Node<'a>) -> Result<(), ArchiveError> {
        let refuse = |fault| ArchiveError::Entry { name: entry::shown(raw), fault };
        let Some(path) = entry::path(raw).map_err(refuse)? else {
            return if node == Node::Dir { Ok(()) } else { Err(refuse(Fault::Empty)) };
        };
        match self.nodes.get(&path) {
            Some(Node::Dir) if node == Node::Dir => return Ok(()),
            Some(_) => return Err(refuse(Fault::Duplicate)),
            None => {}
        }
        // From below: the first directory that is there already has only directories above it.
        let mut above = path.as_str();
        while let Some((parent, _)) = above.rsplit_once('/') {
            match self.nodes.get(parent) {
                Some(Node::Dir) => break,
                Some(_) => return Err(refuse(Fault::BelowNoDirectory)),
                None => self.add(parent.to_owned(), Node::Dir)?,
            }
            above = parent;
        }
        self.add(path, node)
    }

    fn add(&mut self, path: String, node: Node<'a>) -> Result<(), ArchiveError> {
        if self.nodes.len() >= MAX_ENTRIES {
            return Err(ArchiveError::TooManyEntries);
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Everything in it, directories before what is in them.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&str, &Node<'a>)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Refuses links that leave the directory, however many other links help them.
    pub(super) fn check_links(&self) -> Result<(), ArchiveError> {
        let mut steps = MAX_STEPS;
        for (path, node) in self.nodes() {
            if matches!(node, Node::Link { .. }) {
                self.follow(path, &mut steps)
                    .map_err(|fault| ArchiveError::Entry { name: entry::shown(path.as_bytes()), fault })?;
            }
        }
        Ok(())
    }

    /// The file at `path`, through links.
    pub(super) fn file(&self, path: &str) -> Option<File<'_>> {
        match self.nodes.get(&self.follow(path, &mut MAX_STEPS.clone()).ok()?)? {
            Node::File { body, executable } => Some(File { body, executable: *executable }),
            Node::Dir | Node::Link { .. } => None,
        }
    }

    /// Where `path` leads, as the kernel would walk it. What is not there is taken as a directory: a link may dangle,
    /// as long as it dangles inside.
    fn follow(&self, path: &str, steps: &mut u32) -> Result<String, Fault> {
        let mut todo: Vec<&str> = path.rsplit('/').collect();
        let mut at = String::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            *steps = steps.checked_sub(1).ok_or(Fault::LinkLoop)?;
            match part {
                "" | "." => {}
                ".." if at.is_empty() => return Err(Fault::LinkLeaves),
                ".." => at.truncate(at.rfind('/').unwrap_or(0)),
                name => {
                    let parent = at.len();
                    if parent > 0 {
                        at.push('/');
                    }
                    at.push_str(name);
                    if let Some(Node::Link { target }) = self.nodes.get(&at) {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(Fault::LinkLoop);
                        }
                        at.truncate(parent);
                        todo.extend(target.rsplit('/'));
                    }
                }
            }
        }
        Ok(at)
    }
}
