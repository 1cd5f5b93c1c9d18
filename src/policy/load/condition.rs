//! Conditions and templates: parsed once, here, so that a bad expression is an error of the policy with its
//! line and never one of an image.

use serde_json::{Value, json};
use serde_saphyr::Spanned;

use super::{Loader, yaml};
use crate::policy::condition::operator::Operator;
use crate::policy::condition::{Block, Condition, Conditions, Order};
use crate::policy::context::UNKNOWN;
use crate::policy::jmespath::Names;
use crate::policy::variables::{Template, resolve_references};

impl Loader<'_> {
    /// `attestations[].conditions`.
    pub(super) fn attestation_conditions(
        &mut self,
        place: &str,
        blocks: &[Spanned<yaml::Block>],
    ) -> Option<Conditions> {
        let document = blocks.iter().map(|block| of_block(&block.value)).collect();
        let draft = Draft { place: format!("{place}.conditions"), document, order: Order::AllFirst };
        let mut found = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            if block.value.any.is_none() && block.value.all.is_none() {
                self.warning(block.referenced.line(), format!("{}[{index}] asks for nothing", draft.place));
            }
            found.push(self.block(&draft, index, &block.value));
        }
        Some(Conditions { blocks: found.into_iter().collect::<Option<_>>()?, order: Order::AllFirst })
    }

    /// Conditions elsewhere: one block, or the old list. None at all ask for nothing.
    pub(super) fn conditions(
        &mut self,
        place: &str,
        conditions: Option<&Spanned<yaml::Conditions>>,
    ) -> Option<Conditions> {
        let block = match conditions.map(|conditions| &conditions.value) {
            None => yaml::Block::default(),
            Some(yaml::Conditions::Block(block)) => block.clone(),
            Some(yaml::Conditions::List(list)) => yaml::Block { any: None, all: Some(list.clone()) },
        };
        if let (Some(conditions), Some([])) = (conditions, block.any.as_deref()) {
            self.warning(conditions.referenced.line(), format!("{place}: any is empty, which never holds"));
        }
        let document = Value::Array(vec![of_block(&block)]);
        let draft = Draft { place: place.to_owned(), document, order: Order::AsReached };
        let block = self.block(&draft, 0, &block)?;
        Some(Conditions { blocks: vec![block], order: Order::AsReached })
    }

    fn block(&mut self, draft: &Draft, index: usize, block: &yaml::Block) -> Option<Block> {
        // On its way to an attestation's conditions upstream drops a list that is empty.
        let any = block.any.as_ref().filter(|list| draft.order == Order::AsReached || !list.is_empty());
        let any = any.map(|list| self.listed(draft, index, "any", list));
        let all = self.listed(draft, index, "all", block.all.as_deref().unwrap_or_default());
        let any = match any {
            Some(any) => Some(any?),
            None => None,
        };
        Some(Block { any, all: all? })
    }

    fn listed(
        &mut self,
        draft: &Draft,
        block: usize,
        kind: &str,
        list: &[Spanned<yaml::Condition>],
    ) -> Option<Vec<Condition>> {
        let each = list.iter().enumerate().map(|(index, condition)| {
            let (line, condition) = (condition.referenced.line(), &condition.value);
            let place = format!("{}[{block}].{kind}[{index}]", draft.place);
            let path = format!("/{block}/{kind}/{index}");
            let mut part = |field: &str, value: Option<&Spanned<Value>>| {
                let Some(value) = value else {
                    self.error(line, format!("{place}: {field} is missing"));
                    return None;
                };
                self.template(&format!("{place}.{field}"), value, &draft.document, &format!("{path}/{field}"))
            };
            let (key, value) = (part("key", condition.key.as_ref()), part("value", condition.value.as_ref()));
            let message = condition.message.as_ref();
            let (text, at) = message.map_or((Value::Null, line), |message| {
                (Value::String(message.value.clone()), message.referenced.line())
            });
            let message = self.template_of(
                &format!("{place}.message"),
                at,
                &text,
                &draft.document,
                &format!("{path}/message"),
            );
            let operator = self.operator(line, &place, condition.operator.as_ref());
            let path = format!("[{block}].{kind}[{index}]");
            Some(Condition { path, key: key?, operator: operator?, value: value?, message: message? })
        });
        // All errors are said.
        let found: Vec<_> = each.collect();
        found.into_iter().collect()
    }

    fn operator(&mut self, line: u64, place: &str, operator: Option<&Spanned<String>>) -> Option<Operator> {
        let Some(operator) = operator else {
            self.error(line, format!("{place}: operator is missing"));
            return None;
        };
        let at = operator.referenced.line();
        match Operator::parse(&operator.value) {
            Ok(found) => {
                if let Some(replacement) = found.replacement() {
                    self.warning(
                        at,
                        format!("{place}: operator {} is deprecated; use {replacement}", found.name()),
                    );
                }
                Some(found)
            }
            Err(error) => {
                self.error(at, format!("{place}: {error}"));
                None
            }
        }
    }

    /// A value with variables. `document` is what its references point into, `path` where it stands there.
    pub(super) fn template(
        &mut self,
        place: &str,
        value: &Spanned<Value>,
        document: &Value,
        path: &str,
    ) -> Option<Template> {
        self.template_of(place, value.referenced.line(), &value.value, document, path)
    }

    pub(super) fn template_of(
        &mut self,
        place: &str,
        line: u64,
        value: &Value,
        document: &Value,
        path: &str,
    ) -> Option<Template> {
        let resolved = resolve_references(value, document, path);
        let template = match resolved.and_then(|resolved| Template::parse(resolved, path)) {
            Ok(template) => template,
            Err(error) => {
                self.error(line, format!("{place}: {error}"));
                return None;
            }
        };
        if let Names::Only(names) = template.reads().names
            && let Some(unknown) = UNKNOWN.into_iter().find(|unknown| names.contains(*unknown))
        {
            self.error(
                line,
                format!("{place}: `{unknown}` is not known on a node: a pull does not say who asked"),
            );
            return None;
        }
        Some(template)
    }
}

/// What is the same for all conditions of one list.
struct Draft {
    place: String,
    /// Everything as it is written: what references point into.
    document: Value,
    order: Order,
}

fn of_block(block: &yaml::Block) -> Value {
    let list = |list: Option<&Vec<Spanned<yaml::Condition>>>| -> Value {
        list.into_iter().flatten().map(|condition| of_condition(&condition.value)).collect()
    };
    json!({ "any": list(block.any.as_ref()), "all": list(block.all.as_ref()) })
}

fn of_condition(condition: &yaml::Condition) -> Value {
    json!({
        "key": condition.key.as_ref().map(|key| &key.value),
        "operator": condition.operator.as_ref().map(|operator| &operator.value),
        "value": condition.value.as_ref().map(|value| &value.value),
        "message": condition.message.as_ref().map(|message| &message.value),
    })
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;
