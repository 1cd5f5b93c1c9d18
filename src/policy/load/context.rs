//! `context` of a rule, and the ConfigMaps that it reads.
//!
//! What follows from the policy folder alone gets its value here; where it has none, that is a warning, since
//! upstream finds out when an image is judged, and so it is here: the rule is undecided then.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use serde_saphyr::Spanned;

use super::{Loader, yaml};
use crate::oci::Reference;
use crate::policy::context::{RESERVED, UNKNOWN};
use crate::policy::jmespath::{Budget, Expression, Names, Scope};
use crate::policy::rule_context::{
    ConfigMapName, ContextEntry, ImageQuery, OPERAND_PIPE, Query, Reach, RuleContext, Source, Sources,
    Values, Variable,
};
use crate::policy::stored_image::StoredImages;
use crate::policy::variables::Template;

/// A rule's context after loading.
#[derive(Default)]
pub(super) struct LoadedContext {
    pub(super) context: RuleContext,
    /// The names whose values are known, with them.
    pub(super) fixed: Values,
}

impl Loader<'_> {
    /// A ConfigMap document: what a rule sees of it.
    pub(super) fn config_map(&mut self, line: u64, document: &yaml::ConfigMapDocument) {
        let (name, namespace) = super::names(document.metadata.as_ref());
        if name.is_empty() {
            return self.error(line, "metadata.name is missing".to_owned());
        }
        let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
        let place = format!("configMap {namespace}/{name}");
        self.meaningless(
            &place,
            &[
                ("binaryData", &document.binary_data, "upstream shows rules the data alone"),
                ("immutable", &document.immutable, "the file is what counts"),
            ],
        );
        let value = json!({ "data": document.data, "metadata": document.metadata });
        if self.maps.insert((namespace.clone(), name.clone()), Arc::new(value)).is_some() {
            self.error(line, format!("ConfigMap `{namespace}/{name}` is defined twice"));
        }
    }

    /// The entries that something in `texts` reads.
    pub(super) fn context(
        &mut self,
        place: &str,
        namespace: Option<&str>,
        entries: &[Spanned<yaml::ContextEntry>],
        mut texts: Vec<String>,
    ) -> LoadedContext {
        let mut kept = Vec::new();
        for (index, entry) in entries.iter().enumerate().rev() {
            let line = entry.referenced.line();
            let place = format!("{place}: context[{index}]");
            let Some(loaded) = self.context_entry(&place, line, namespace, &entry.value) else { continue };
            // Entries see those before them, and nothing else sees an entry.
            if texts.iter().any(|text| may_read(text, &loaded.name)) {
                texts.extend(texts_of(&entry.value));
                kept.push((line, place, loaded));
            } else {
                self.notice(line, format!("{place}: nothing reads `{}`, so it is left out", loaded.name));
            }
        }
        let mut loaded = LoadedContext::default();
        for (line, place, mut entry) in kept.into_iter().rev() {
            let scope = loaded
                .fixed
                .iter()
                .fold(Scope::new(SystemTime::UNIX_EPOCH), |scope, (name, value)| scope.name(name, value));
            // Of no image anything is known here, and no entry that asks for one follows from the folder.
            let sources = Sources { maps: &self.maps, images: &StoredImages::default() };
            let value = entry
                .follows_from(&loaded.fixed)
                .then(|| entry.value(&scope, sources, &mut Budget::of_verdict()));
            match value {
                None => drop(loaded.fixed.remove(&entry.name)),
                Some(Ok(value)) => {
                    loaded.fixed.insert(entry.name.clone(), Arc::clone(&value));
                    entry.source = Source::Fixed(value);
                }
                Some(Err(error)) => {
                    self.warning(line, format!("{place}: {error}; until it is there, every image that the rule covers is undecided"));
                    loaded.fixed.remove(&entry.name);
                    entry.source = Source::Missing(error);
                }
            }
            loaded.context.entries.push(entry);
        }
        loaded
    }

    fn context_entry(
        &mut self,
        place: &str,
        line: u64,
        namespace: Option<&str>,
        entry: &yaml::ContextEntry,
    ) -> Option<ContextEntry> {
        let before = self.errors.len();
        if entry.name.is_empty() {
            self.error(line, format!("{place}: it has no name"));
        } else if RESERVED.contains(&entry.name.as_str()) || UNKNOWN.contains(&entry.name.as_str()) {
            self.error(
                line,
                format!(
                    "{place}: the name `{}` always stands for something else; choose another",
                    entry.name
                ),
            );
        }
        for (field, value, why) in [
            (
                "apiCall",
                &entry.api_call,
                "a node does not ask the API server; put the data into a ConfigMap document in the policy folder",
            ),
            (
                "globalReference",
                &entry.global_reference,
                "it is kept by Kyverno in the cluster; put the data into a ConfigMap document in the policy folder",
            ),
        ] {
            self.refuse(place, field, value, why);
        }
        let given = [
            entry.config_map.is_some(),
            entry.variable.is_some(),
            entry.api_call.is_some(),
            entry.global_reference.is_some(),
            entry.image_registry.is_some(),
        ];
        if given.into_iter().filter(|given| *given).count() != 1 {
            self.error(line, format!("{place}: exactly one of configMap, variable, apiCall, imageRegistry and globalReference is required"));
        }
        let source = match (&entry.config_map, &entry.variable, &entry.image_registry) {
            (Some(map), _, _) => self.config_map_name(place, line, namespace, map).map(Source::ConfigMap),
            (None, Some(variable), _) => self.context_variable(place, variable).map(Source::Variable),
            (None, None, Some(image)) => self.image_query(place, image).map(Source::Image),
            (None, None, None) => None,
        };
        let source = source.filter(|_| self.errors.len() == before)?;
        Some(ContextEntry { name: entry.name.clone(), source })
    }

    fn config_map_name(
        &mut self,
        place: &str,
        line: u64,
        own: Option<&str>,
        map: &yaml::ConfigMapReference,
    ) -> Option<ConfigMapName> {
        if map.name.is_empty() {
            self.error(line, format!("{place}: configMap.name is missing"));
            return None;
        }
        let mut template = |field: &str, text: &str| {
            let text = Value::String(text.to_owned());
            self.template_of(&format!("{place}: configMap.{field}"), line, &text, &text, "")
        };
        let (name, namespace) = (template("name", &map.name), template("namespace", &map.namespace));
        Some(ConfigMapName {
            name: name?,
            namespace: namespace?,
            own_namespace: own.unwrap_or("default").to_owned(),
            reach: if own.is_some() { Reach::Namespace } else { Reach::Cluster },
        })
    }

    fn context_variable(
        &mut self,
        place: &str,
        variable: &Spanned<yaml::ContextVariable>,
    ) -> Option<Variable> {
        let (line, variable) = (variable.referenced.line(), &variable.value);
        let mut template = |field: &str, value: &Option<yaml::Unread>| match value {
            Some(value) if !value.value.is_null() => self
                .template_of(
                    &format!("{place}: variable.{field}"),
                    value.referenced.line(),
                    &value.value,
                    &value.value,
                    "",
                )
                .map(Some),
            Some(_) | None => Some(None),
        };
        let (value, default) = (template("value", &variable.value), template("default", &variable.default));
        let (value, default) = (value?, default?);
        let query = match variable.jmes_path.as_ref().filter(|path| !path.value.trim().is_empty()) {
            None => None,
            Some(path) => Some(self.variable_query(place, path, value.is_some())?),
        };
        if value.is_none() && query.is_none() && default.is_none() {
            self.error(line, format!("{place}: variable has neither value, jmesPath nor default"));
            return None;
        }
        Some(Variable { value, query, default })
    }

    fn variable_query(&mut self, place: &str, path: &Spanned<String>, on_value: bool) -> Option<Query> {
        let text = if on_value { format!("{OPERAND_PIPE}{}", path.value) } else { path.value.clone() };
        let expression = self.query(&format!("{place}: variable.jmesPath"), path, &text)?;
        Some(if on_value { Query::Value(expression) } else { Query::Context(expression) })
    }

    /// The expression `text` that the policy writes as `path`.
    fn query(&mut self, place: &str, path: &Spanned<String>, text: &str) -> Option<Expression> {
        let line = path.referenced.line();
        if path.value.contains("{{") {
            self.error(line, format!("{place} must not hold variables: data would become part of the expression; name what it is to read, or put the variable into a variable's value"));
            return None;
        }
        match Expression::parse(text) {
            Ok(expression) => Some(expression),
            Err(error) => {
                self.error(line, format!("{place}: {error}"));
                None
            }
        }
    }

    fn image_query(&mut self, place: &str, image: &Spanned<yaml::ImageRegistry>) -> Option<ImageQuery> {
        let (line, image) = (image.referenced.line(), &image.value);
        let place = format!("{place}: imageRegistry");
        self.registry_credentials(&place, image.image_registry_credentials.as_ref());
        if image.reference.trim().is_empty() {
            self.error(line, format!("{place}.reference is missing: it names the image that is asked for"));
            return None;
        }
        let text = Value::String(image.reference.clone());
        let reference = self.template_of(&format!("{place}.reference"), line, &text, &text, "")?;
        if reference.is_plain()
            && let Err(error) = Reference::parse(&image.reference)
        {
            self.error(line, format!("{place}.reference: {error}"));
            return None;
        }
        let query = match image.jmes_path.as_ref().filter(|path| !path.value.trim().is_empty()) {
            None => None,
            Some(path) => Some(self.query(&format!("{place}.jmesPath"), path, &path.value)?),
        };
        Some(ImageQuery { reference, query })
    }
}

/// Whether an expression, or a text with some in it, may read `name`. A name that is itself made of
/// variables, or the whole of what is known (`@`), may be any.
fn may_read(text: &str, name: &str) -> bool {
    let reads = if text.contains("{{") {
        Template::parse(Value::String(text.to_owned()), "").map(|template| template.reads()).ok()
    } else {
        Expression::parse(text).map(|expression| expression.reads().clone()).ok()
    };
    match reads.map(|reads| reads.names) {
        Some(Names::Only(names)) => names.contains(name),
        // What cannot be read is an error where it stands.
        Some(Names::Everything) | None => true,
    }
}

/// The texts of an entry in which it may name others.
fn texts_of(entry: &yaml::ContextEntry) -> Vec<String> {
    let mut texts = Vec::new();
    if let Some(map) = &entry.config_map {
        texts.extend([map.name.clone(), map.namespace.clone()]);
    }
    if let Some(image) = &entry.image_registry {
        texts.push(image.value.reference.clone());
    }
    if let Some(variable) = &entry.variable {
        texts.extend(variable.value.jmes_path.as_ref().map(|path| path.value.clone()));
        for value in [&variable.value.value, &variable.value.default].into_iter().flatten() {
            texts.extend(super::template::texts(&value.value));
        }
    }
    texts
}
