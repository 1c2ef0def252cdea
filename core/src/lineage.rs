//! Where an invocation comes from that another invocation caused, and the end of chains that would have none.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::InvocationId;
use crate::name::FunctionName;

/// Most steps of a chain.
pub const LONGEST: usize = 16;

/// The invocations before one, as far as they caused it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lineage {
    /// The one before.
    pub parent: InvocationId,
    /// The first one.
    pub root: InvocationId,
    /// Steps from the first one to this.
    pub depth: u32,
    /// The functions on the way, the first one first.
    pub functions: Vec<FunctionName>,
}

/// A step that is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Endless {
    /// The function is on the way already.
    #[error("this is a loop: {0}; it is not gone round again")]
    Loop(String),
    /// There are too many steps.
    #[error("the chain has {LONGEST} steps already: {0}")]
    Long(String),
}

impl Lineage {
    /// The lineage of an invocation of `next` that the end of `parent`, an invocation of `function` with this lineage, causes.
    ///
    /// # Errors
    /// [`Endless`] where it would come to a function for the second time, or the chain is too long.
    pub fn step(
        of: Option<&Self>,
        parent: InvocationId,
        function: &FunctionName,
        next: &FunctionName,
    ) -> Result<Self, Endless> {
        let lineage = Self::after(of, parent, function);
        lineage.leads_to(next)?;
        Ok(lineage)
    }

    /// The lineage of whatever the end of `parent`, an invocation of `function` with the lineage `of`, causes.
    #[must_use]
    pub fn after(of: Option<&Self>, parent: InvocationId, function: &FunctionName) -> Self {
        let mut functions = of.map(|lineage| lineage.functions.clone()).unwrap_or_default();
        functions.push(function.clone());
        let root = of.map_or(parent, |lineage| lineage.root);
        Self { parent, root, depth: of.map_or(0, |lineage| lineage.depth).saturating_add(1), functions }
    }

    /// Whether an invocation of `next` may have this lineage.
    ///
    /// # Errors
    /// [`Endless`] where it would come to a function for the second time, or the chain is too long.
    pub fn leads_to(&self, next: &FunctionName) -> Result<(), Endless> {
        let path = || self.functions.iter().chain([next]).map(FunctionName::as_str).collect::<Vec<_>>().join(" -> ");
        if self.functions.contains(next) {
            return Err(Endless::Loop(path()));
        }
        if self.functions.len() > LONGEST {
            return Err(Endless::Long(path()));
        }
        Ok(())
    }

    /// The lineage of an invocation that repeats `original`: it stands where that one stood.
    #[must_use]
    pub fn repeat(of: Option<&Self>, original: InvocationId) -> Self {
        Self {
            parent: original,
            root: of.map_or(original, |lineage| lineage.root),
            depth: of.map_or(0, |lineage| lineage.depth),
            functions: of.map(|lineage| lineage.functions.clone()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> FunctionName {
        FunctionName::new(text).unwrap()
    }

    #[test]
    fn each_step_names_its_parent_and_the_first_one() {
        let (first, second) = (InvocationId::new(), InvocationId::new());
        let one = Lineage::step(None, first, &name("a"), &name("b")).unwrap();
        assert_eq!((one.parent, one.root, one.depth), (first, first, 1));
        let two = Lineage::step(Some(&one), second, &name("b"), &name("c")).unwrap();
        assert_eq!((two.parent, two.root, two.depth), (second, first, 2));
        assert_eq!(two.functions, [name("a"), name("b")]);
        let again = Lineage::repeat(Some(&two), InvocationId::new());
        assert_eq!((again.root, again.depth, again.functions), (first, 2, two.functions.clone()));
    }

    #[test]
    fn loops_and_endless_chains_are_refused_with_their_way() {
        let id = InvocationId::new();
        let one = Lineage::step(None, id, &name("a"), &name("b")).unwrap();
        let refused = Lineage::step(Some(&one), id, &name("b"), &name("a")).unwrap_err();
        assert_eq!(refused.to_string(), "this is a loop: a -> b -> a; it is not gone round again");
        let mut lineage = one;
        let mut refused = None;
        for n in 0..40 {
            match Lineage::step(Some(&lineage), id, &name(&format!("f{n}")), &name(&format!("f{}", n + 1))) {
                Ok(next) => lineage = next,
                Err(error) => refused = refused.or(Some((n, error))),
            }
        }
        assert!(matches!(refused, Some((15, Endless::Long(_)))), "{refused:?}");
    }
}
