//! `context` of a rule: names that its preconditions, conditions and fields can read.
//!
//! An entry whose value follows from the policy folder alone (a ConfigMap there, a variable that reads no
//! pull) has it since load. One that reads the pull gets it for each pull, in the order of the list, and so does
//! one about an image in a registry (`imageRegistry`), for which that must be known: the first that is not is
//! asked for. Entries that nothing reads are dropped at load, as upstream reads them only when asked.
//!
//! An entry without a value is no reason to leave the rule out: the rule is undecided for every image that
//! it covers, and no other image is concerned. ConfigMaps are the documents of that kind in the policy
//! folder: whoever may write policies there says what they hold. Semantics: Kyverno
//! 1.19, "External Data Sources" of its documentation.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::context::Context;
use super::jmespath::{Budget, Clock, EvaluationError, Expression, Names, Reads, Scope};
use super::stored_image::{Stored, StoredImages};
use super::variables::{SubstitutionError, Template, cut};
use crate::oci::{Reference, ReferenceError};
use crate::outcome::Fault;

/// ConfigMaps by namespace and name: what a rule sees of each.
pub(super) type ConfigMaps = BTreeMap<(String, String), Arc<Value>>;
/// Values by name.
pub(super) type Values = BTreeMap<String, Arc<Value>>;

/// What entries take their values from, beside the pull.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) maps: &'a ConfigMaps,
    /// What registries said so far.
    pub(super) images: &'a StoredImages,
}

/// The entries of one rule that something reads, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct RuleContext {
    pub(super) entries: Vec<ContextEntry>,
}

/// One name.
#[derive(Debug, Clone)]
pub(super) struct ContextEntry {
    pub(super) name: String,
    pub(super) source: Source,
}

/// Where its value comes from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Known since load.
    Fixed(Arc<Value>),
    /// It follows from the folder alone, and has no value there.
    Missing(ContextError),
    /// A ConfigMap.
    ConfigMap(ConfigMapName),
    /// A variable.
    Variable(Variable),
    /// An image, as its registry has it.
    Image(ImageQuery),
}

/// Which ConfigMap.
#[derive(Debug, Clone)]
pub(super) struct ConfigMapName {
    pub(super) name: Template,
    pub(super) namespace: Template,
    /// Where it is if nothing says so: the policy's namespace, or `default`.
    pub(super) own_namespace: String,
    /// Whether another namespace is out of reach: a namespaced policy's is.
    pub(super) reach: Reach,
}

/// How far a policy may look for ConfigMaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everywhere.
    Cluster,
    /// In its own namespace.
    Namespace,
}

/// An `imageRegistry`: which image, and an expression on what is known of it.
#[derive(Debug, Clone)]
pub(super) struct ImageQuery {
    pub(super) reference: Template,
    pub(super) query: Option<Expression>,
}

/// A `variable`: a value, an expression, or an expression on a value; and what counts where that gives nothing.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub(super) value: Option<Template>,
    pub(super) query: Option<Query>,
    pub(super) default: Option<Template>,
}

/// `jmesPath`.
#[derive(Debug, Clone)]
pub(super) enum Query {
    /// On everything that is known.
    Context(Expression),
    /// On the `value` beside it, which it knows as [`OPERAND`].
    Value(Expression),
}

/// Why an entry has no value. The texts are upstream's where upstream has one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum ContextError {
    /// The name of a ConfigMap cannot be filled in, or becomes no text.
    #[error("failed to substitute variables in context {entry} configMap: {cause}")]
    ConfigMapName {
        /// The entry.
        entry: String,
        /// Why.
        cause: Box<NameCause>,
    },
    /// There is none.
    #[error(
        "failed to retrieve config map for context entry {entry}: failed to get configmap {namespace}/{name}: \
         there is no such document in the policy folder"
    )]
    NoConfigMap {
        /// The entry.
        entry: String,
        /// Where it was looked for.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A namespaced policy looks elsewhere.
    #[error(
        "failed to retrieve config map for context entry {entry}: configMap namespace \"{namespace}\" is \
         different from policy namespace \"{own}\""
    )]
    OtherNamespace {
        /// The entry.
        entry: String,
        /// Where it looks.
        namespace: String,
        /// Where it may look.
        own: String,
    },
    /// A variable in a variable has no value.
    #[error("failed to substitute variables in context entry {entry}: {cause}")]
    Substitution {
        /// The entry.
        entry: String,
        /// Why.
        cause: Box<SubstitutionError>,
    },
    /// The expression has none.
    #[error("failed to apply jmespath {query} to variable {entry}: {cause}")]
    Query {
        /// The entry.
        entry: String,
        /// The expression.
        query: String,
        /// Why.
        cause: Box<EvaluationError>,
    },
    /// A variable in an image reference has no value, or becomes no reference.
    #[error("failed to substitute variables in context entry {entry} {reference}: {cause}")]
    ImageReference {
        /// The entry.
        entry: String,
        /// As the policy writes it.
        reference: String,
        /// Why.
        cause: Box<ReferenceCause>,
    },
    /// There is no such image, or not what is read of one.
    #[error("failed to fetch image descriptor: {reference}, error: {cause}")]
    NoImage {
        /// The image.
        reference: String,
        /// Why.
        cause: String,
    },
    /// It could not be found out.
    #[error("failed to fetch image descriptor: {0}")]
    Unreachable(Fault),
    /// No registry was asked for it yet.
    #[error("failed to fetch image descriptor: {0}: it was not asked for")]
    NotAsked(Box<Reference>),
    /// The expression has no value on what is known of an image.
    #[error("failed to apply JMESPath ({query}) results to context entry {entry}, error: {cause}")]
    ImageQuery {
        /// The entry.
        entry: String,
        /// The expression.
        query: String,
        /// Why.
        cause: Box<EvaluationError>,
    },
    /// Nothing came out, and there is no default.
    #[error("failed to add context entry for variable {entry} since it evaluated to nil")]
    Nothing {
        /// The entry.
        entry: String,
    },
}

/// What is wrong with the name of a ConfigMap.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum NameCause {
    /// A variable in it.
    #[error(transparent)]
    Substitution(#[from] SubstitutionError),
    /// It becomes something else than a text.
    #[error("expected string")]
    NotText,
}

/// What is wrong with the reference of an image.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum ReferenceCause {
    /// A variable in it.
    #[error(transparent)]
    Substitution(#[from] SubstitutionError),
    /// It becomes something else than a text.
    #[error("image reference must be a string")]
    NotText,
    /// It becomes no image reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

impl RuleContext {
    /// Makes all names known in `context`.
    ///
    /// # Errors
    /// The first entry without a value.
    pub(super) fn fill(
        &self,
        context: &mut Context,
        sources: Sources<'_>,
        budget: &mut Budget,
    ) -> Result<(), ContextError> {
        for entry in &self.entries {
            let value = entry.value(&context.scope(None), sources, budget)?;
            context.variable(&entry.name, value);
        }
        Ok(())
    }

    /// Whether all values are known since load.
    pub(super) fn is_fixed(&self) -> bool {
        self.entries.iter().all(|entry| matches!(entry.source, Source::Fixed(_)))
    }

    /// Whether a registry is asked for any of them.
    pub(super) fn asks_registries(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.source, Source::Image(_)))
    }

    /// What the values depend on besides the folder and registries.
    pub(super) fn reads(&self) -> Reads {
        let mut reads = Reads::none();
        for entry in &self.entries {
            entry.add_reads(&mut reads);
        }
        reads
    }
}

impl ContextEntry {
    /// The value over `scope`, which knows the entries before this one.
    pub(super) fn value<'a>(
        &'a self,
        scope: &'a Scope<'a>,
        sources: Sources<'_>,
        budget: &mut Budget,
    ) -> Result<Arc<Value>, ContextError> {
        match &self.source {
            Source::Fixed(value) => Ok(Arc::clone(value)),
            Source::Missing(error) => Err(error.clone()),
            Source::ConfigMap(wanted) => wanted.value(&self.name, scope, sources.maps, budget),
            Source::Variable(variable) => variable.value(&self.name, scope, budget).map(Arc::new),
            Source::Image(wanted) => wanted.value(&self.name, scope, sources.images, budget).map(Arc::new),
        }
    }

    pub(super) fn add_reads(&self, reads: &mut Reads) {
        match &self.source {
            Source::Fixed(_) | Source::Missing(_) => {}
            Source::ConfigMap(wanted) => {
                reads.add(&wanted.name.reads());
                reads.add(&wanted.namespace.reads());
            }
            Source::Image(wanted) => {
                reads.add(&wanted.reference.reads());
                let clock = wanted.query.as_ref().map_or(Clock::Ignored, |query| query.reads().clock);
                reads.add(&Reads { names: Names::Only([].into()), clock });
            }
            Source::Variable(variable) => {
                for template in [&variable.value, &variable.default].into_iter().flatten() {
                    reads.add(&template.reads());
                }
                match &variable.query {
                    None => {}
                    Some(Query::Context(query)) => reads.add(query.reads()),
                    // Of names it reads its operand alone.
                    Some(Query::Value(query)) => {
                        let names = Names::Only([].into());
                        reads.add(&Reads { names, clock: query.reads().clock });
                    }
                }
            }
        }
    }

    /// Whether the value follows from these names alone.
    pub(super) fn follows_from(&self, names: &Values) -> bool {
        if matches!(self.source, Source::Image(_)) {
            return false;
        }
        let mut reads = Reads::none();
        self.add_reads(&mut reads);
        follows_from(&reads, names)
    }
}

/// Whether what has these reads follows from `names` alone.
pub(super) fn follows_from(reads: &Reads, names: &Values) -> bool {
    let known = match &reads.names {
        Names::Only(wanted) => wanted.iter().all(|name| names.contains_key(name)),
        Names::Everything => false,
    };
    known && reads.clock == Clock::Ignored
}

impl ConfigMapName {
    fn value(
        &self,
        entry: &str,
        scope: &Scope<'_>,
        maps: &ConfigMaps,
        budget: &mut Budget,
    ) -> Result<Arc<Value>, ContextError> {
        let mut text = |template: &Template| {
            let failed = |cause: NameCause| ContextError::ConfigMapName {
                entry: entry.to_owned(),
                cause: Box::new(cause),
            };
            let value = template.substitute(scope, budget).map_err(|cause| failed(cause.into()))?;
            value.as_str().map(str::to_owned).ok_or_else(|| failed(NameCause::NotText))
        };
        let name = text(&self.name)?;
        let mut namespace = text(&self.namespace)?;
        if namespace.is_empty() {
            namespace.clone_from(&self.own_namespace);
        }
        let entry = entry.to_owned();
        if self.reach == Reach::Namespace && namespace != self.own_namespace {
            return Err(ContextError::OtherNamespace { entry, namespace, own: self.own_namespace.clone() });
        }
        match maps.get(&(namespace.clone(), name.clone())) {
            Some(map) => Ok(Arc::clone(map)),
            None => Err(ContextError::NoConfigMap { entry, namespace, name }),
        }
    }
}

impl ImageQuery {
    fn value(
        &self,
        entry: &str,
        scope: &Scope<'_>,
        images: &StoredImages,
        budget: &mut Budget,
    ) -> Result<Value, ContextError> {
        let reference = self.reference(scope, budget).map_err(|cause| ContextError::ImageReference {
            entry: entry.to_owned(),
            reference: cut(self.reference.source().as_str().unwrap_or_default(), REFERENCE_SHOWN)
                .into_owned(),
            cause: Box::new(cause),
        })?;
        let nothing = |cause| ContextError::NoImage { reference: reference.text().to_owned(), cause };
        let image = match images.of(&reference) {
            Some(Stored::Found(image)) => image,
            Some(Stored::Nothing(cause)) => return Err(nothing(cause.clone())),
            Some(Stored::Unreachable(fault)) => return Err(ContextError::Unreachable(fault.clone())),
            None => return Err(ContextError::NotAsked(Box::new(reference))),
        };
        budget.output(image.weight()).map_err(|error| nothing(error.to_string()))?;
        let seen = image.seen(&reference);
        let Some(query) = &self.query else { return Ok(seen) };
        let found = query.search_in(&seen, scope, budget).map(Cow::into_owned);
        found.map_err(|cause| ContextError::ImageQuery {
            entry: entry.to_owned(),
            query: query.text().to_owned(),
            cause: Box::new(cause),
        })
    }

    fn reference(&self, scope: &Scope<'_>, budget: &mut Budget) -> Result<Reference, ReferenceCause> {
        let filled = self.reference.substitute(scope, budget)?;
        Ok(Reference::parse(filled.as_str().ok_or(ReferenceCause::NotText)?)?)
    }
}

impl Variable {
    fn value(&self, entry: &str, scope: &Scope<'_>, budget: &mut Budget) -> Result<Value, ContextError> {
        let fill = |template: &Template, budget: &mut Budget| {
            let failed =
                |cause| ContextError::Substitution { entry: entry.to_owned(), cause: Box::new(cause) };
            template.substitute(scope, budget).map(Cow::into_owned).map_err(failed)
        };
        let default = match &self.default {
            Some(default) => fill(default, budget)?,
            None => Value::Null,
        };
        let value = match &self.value {
            Some(value) => Some(fill(value, budget)?),
            None => None,
        };
        let found = match (&self.query, value) {
            (None, value) => Ok(value.unwrap_or_default()),
            (Some(Query::Context(query)), _) => query.search(scope, budget).map(Cow::into_owned),
            (Some(Query::Value(query)), value) => {
                let value = value.unwrap_or_default();
                let scope = Scope::new(scope.now()).name(OPERAND, &value);
                query.search(&scope, budget).map(Cow::into_owned)
            }
        };
        match found {
            Ok(Value::Null) if !default.is_null() => Ok(default),
            // What cannot be answered here is not upstream's "no value".
            Err(error) if !default.is_null() && error.is_upstreams() => Ok(default),
            Ok(Value::Null) => Err(ContextError::Nothing { entry: entry.to_owned() }),
            Ok(value) => Ok(value),
            Err(cause) => {
                let query = self.query.as_ref().map(Query::text).unwrap_or_default().to_owned();
                Err(ContextError::Query { entry: entry.to_owned(), query, cause: Box::new(cause) })
            }
        }
    }
}

impl Query {
    /// What the policy says.
    fn text(&self) -> &str {
        match self {
            Self::Context(query) => query.text(),
            Self::Value(query) => query.text().strip_prefix(OPERAND_PIPE).unwrap_or_default(),
        }
    }
}

/// Characters of a reference that a message shows.
const REFERENCE_SHOWN: usize = 200;
/// The name by which an expression on a value knows it; it sees no other.
pub(super) const OPERAND: &str = "value";
/// What stands before such an expression.
pub(super) const OPERAND_PIPE: &str = "value | ";
