//! `imageExtractors`: where images are written in custom kinds.

use std::collections::BTreeMap;

use serde_saphyr::Spanned;

use super::{Loader, yaml};
use crate::policy::extract::{Extractor, Extractors};
use crate::policy::jmespath::{Clock, Expression};

impl Loader<'_> {
    pub(super) fn extractors(&mut self, place: &str, rule: &yaml::Rule) -> Extractors {
        let Some(kinds) = &rule.image_extractors else { return Extractors::default() };
        self.notice(
            kinds.referenced.line(),
            format!("{place}: imageExtractors means nothing on a node: a pull names its image itself"),
        );
        let entries = rule.verify_images.iter().flatten();
        let pins =
            entries.map(|entry| entry.mutate_digest.as_ref()).any(|pins| pins.is_none_or(|pins| pins.value));
        let mut extractors = BTreeMap::new();
        for (kind, list) in &kinds.value {
            let place = format!("{place}: imageExtractors.{kind}");
            if list.is_empty() {
                self.error(kinds.referenced.line(), format!("{place}: no extractors found for {kind}"));
            }
            let list = list.iter().enumerate().filter_map(|(index, extractor)| {
                self.extractor(&format!("{place}[{index}]"), extractor, pins)
            });
            extractors.insert(kind.clone(), list.collect());
        }
        Extractors(extractors)
    }

    fn extractor(
        &mut self,
        place: &str,
        extractor: &Spanned<yaml::ImageExtractor>,
        pins: bool,
    ) -> Option<Extractor> {
        let (line, extractor) = (extractor.referenced.line(), &extractor.value);
        let expression = extractor.jmes_path.as_ref().filter(|text| !text.value.is_empty());
        if let Some(text) = expression.filter(|_| pins) {
            // A digest could not be written back through the expression.
            self.error(
                text.referenced.line(),
                format!(
                    "{place}: jmespath may not be used in an image extractor when mutating digests with verify \
                     images; set mutateDigest: false"
                ),
            );
        }
        let expression = expression.and_then(|text| self.timeless(place, text));
        let mut path: Vec<String> = extractor.path.split('/').map(str::trim).map(str::to_owned).collect();
        path.retain(|part| !part.is_empty());
        let value = match extractor.value.as_str() {
            "" => path.pop(),
            value => Some(value.to_owned()),
        };
        let Some(value) = value else {
            self.error(line, format!("{place}: path is missing: it names the field that holds the image"));
            return None;
        };
        if value == "*" {
            self.error(
                line,
                format!("{place}: path ends in `*`; put the field that holds the image into value"),
            );
            return None;
        }
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let group = given(&extractor.name).unwrap_or_else(|| "custom".to_owned());
        Some(Extractor { group, path, value, key: given(&extractor.key), expression })
    }

    fn timeless(&mut self, place: &str, text: &Spanned<String>) -> Option<Expression> {
        let line = text.referenced.line();
        match Expression::parse(&text.value) {
            Ok(expression) if expression.reads().clock == Clock::Ignored => Some(expression),
            Ok(_) => {
                self.error(
                    line,
                    format!("{place}: jmesPath reads the time; which image is named must not depend on it"),
                );
                None
            }
            Err(error) => {
                self.error(line, format!("{place}: jmesPath: {error}"));
                None
            }
        }
    }
}
