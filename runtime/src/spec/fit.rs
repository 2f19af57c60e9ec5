//! Makes a parsed JSON value fit oci-spec's types where the spec allows it, and says which field does not fit and why.
//! It runs on the failure path only and touches nothing but the value. `load` calls it when serde refused a file or
//! the scan found something odd.

use serde_json::{Map, Value};

use super::shape::{Absent, Member, Shape, Words};
use super::span::child;
use super::warnings::{Warnings, short};
use crate::error::{Error, ErrorKind, Field, Result, Warning};

/// Drops what the spec says to drop, each with a warning; refuses the first value that has the wrong shape.
pub(super) fn fit(value: &mut Value, shape: &Shape, root: &str) -> Result<Warnings> {
    let mut fit = Fit { warnings: Warnings::default() };
    let root = (!root.is_empty()).then(|| Field::owned(root.to_owned()));
    fit.value(value, shape, root.as_ref())?;
    Ok(fit.warnings)
}

/// Every key of the file that the spec does not have, with a word on keys that differ in case only.
pub(super) fn unknown(value: &Value, shape: &Shape, root: &str) -> Warnings {
    let mut found = Warnings::default();
    let root = (!root.is_empty()).then(|| Field::owned(root.to_owned()));
    find_unknown(value, shape, root.as_ref(), &mut found);
    found
}

fn find_unknown(value: &Value, shape: &Shape, at: Option<&Field>, found: &mut Warnings) {
    match (shape, value) {
        (Shape::Obj(members), Value::Object(object)) => {
            for (key, value) in object {
                match members.iter().find(|m| m.name == key) {
                    Some(member) => find_unknown(value, &member.shape, Some(&child(at, key)), found),
                    None => found.add(|| unknown_key(members, at, key)),
                }
            }
        }
        (Shape::List(item), Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                find_unknown(value, item, at.map(|f| f.index(index)).as_ref(), found);
            }
        }
        (Shape::Map(item), Value::Object(map)) => {
            for (key, value) in map {
                find_unknown(value, item, at.map(|f| Field::entry(f.as_str(), key)).as_ref(), found);
            }
        }
        _ => {}
    }
}

fn unknown_key(members: &[Member], at: Option<&Field>, key: &str) -> Warning {
    let warning = Warning::new(ErrorKind::UnknownField, "the runtime spec has no such field; it is ignored")
        .field(child(at, key));
    match members.iter().find(|m| m.name.eq_ignore_ascii_case(key)) {
        Some(member) => warning.hint(format!("the field in the spec is `{}`, and case matters", member.name)),
        None => warning,
    }
}

struct Fit {
    warnings: Warnings,
}

impl Fit {
    fn value(&mut self, value: &mut Value, shape: &Shape, at: Option<&Field>) -> Result<()> {
        match shape {
            Shape::Obj(members) => self.object(value, members, at),
            Shape::Map(item) => self.map(value, item, at),
            Shape::List(item) => self.list(value, item, at),
            Shape::Word(words) => word(value, words, at),
            Shape::Text => expect(value.is_string(), value, "a string", at),
            Shape::Bool => expect(value.is_boolean(), value, "true or false", at),
            Shape::U16 => unsigned(value, u64::from(u16::MAX), at),
            Shape::U32 => unsigned(value, u64::from(u32::MAX), at),
            Shape::U64 => unsigned(value, u64::MAX, at),
            Shape::I32 => signed(value, i64::from(i32::MIN), i64::from(i32::MAX), at),
            Shape::I64 => signed(value, i64::MIN, i64::MAX, at),
            Shape::Saturating => {
                unsigned(value, u64::MAX, at)?;
                if value.as_i64().is_none() {
                    *value = Value::from(i64::MAX);
                }
                Ok(())
            }
            Shape::CpuList => cpu_list(value, at),
            Shape::Other => Ok(()),
        }
    }

    fn map(&mut self, value: &mut Value, item: &Shape, at: Option<&Field>) -> Result<()> {
        let Value::Object(map) = value else {
            return Err(wrong_type(value, "an object", at));
        };
        map.iter_mut().try_for_each(|(key, value)| {
            let field = at.map(|f| Field::entry(f.as_str(), key));
            self.value(value, item, field.as_ref())
        })
    }

    fn object(&mut self, value: &mut Value, members: &[Member], at: Option<&Field>) -> Result<()> {
        let Value::Object(object) = value else {
            return Err(wrong_type(value, "an object", at));
        };
        for member in members {
            let field = child(at, member.name);
            let present = self.prune(object, member, &field);
            match object.get_mut(member.name).filter(|_| present) {
                Some(value) => self.value(value, &member.shape, Some(&field))?,
                None => self.absent(object, member, &field)?,
            }
        }
        Ok(())
    }

    /// Removes a member that counts as absent; says whether it is still there.
    fn prune(&mut self, object: &mut Map<String, Value>, member: &Member, field: &Field) -> bool {
        let Some(value) = object.get_mut(member.name) else { return false };
        let drop = match (&member.shape, &*value) {
            (Shape::Other, _) => true,
            (_, Value::Null) => {
                self.warnings.add(|| {
                    Warning::new(ErrorKind::NullField, "null is treated as absent").field(field.clone())
                });
                true
            }
            // Go writes an unset word as the empty string.
            (Shape::Word(_), Value::String(word)) => word.is_empty(),
            (Shape::CpuList, Value::String(list)) => list.trim().is_empty(),
            _ => false,
        };
        if drop {
            object.remove(member.name);
        } else if let (Shape::CpuList, Value::String(list)) = (&member.shape, value) {
            list.retain(|c| c != ' ');
        }
        !drop
    }

    fn absent(&mut self, object: &mut Map<String, Value>, member: &Member, field: &Field) -> Result<()> {
        match member.absent {
            Absent::Fine => {}
            Absent::Refuse => {
                return Err(Error::new(ErrorKind::ConfigFieldMissing, "is required by the spec but missing")
                    .field(field.clone()));
            }
            Absent::Default(json) => {
                let value = serde_json::from_str(json).unwrap_or_default();
                object.insert(member.name.to_owned(), value);
                self.warnings.add(|| {
                    let message = format!("is missing: {json} is used instead");
                    Warning::new(ErrorKind::ConfigFieldMissing, message).field(field.clone())
                });
            }
        }
        Ok(())
    }

    fn list(&mut self, value: &mut Value, item: &Shape, at: Option<&Field>) -> Result<()> {
        let Value::Array(list) = value else {
            return Err(wrong_type(
                value,
                if matches!(item, Shape::Text | Shape::Word(_)) { "a list of strings" } else { "a list" },
                at,
            ));
        };
        if let Shape::Word(words) = item
            && words.droppable
        {
            return self.droppable_words(list, words, at);
        }
        for (index, value) in list.iter_mut().enumerate() {
            self.value(value, item, at.map(|f| f.index(index)).as_ref())?;
        }
        Ok(())
    }

    /// The types first, so that an error names the index in the file.
    fn droppable_words(&mut self, list: &mut Vec<Value>, words: &Words, at: Option<&Field>) -> Result<()> {
        for (index, value) in list.iter().enumerate() {
            expect(value.is_string(), value, "a string", at.map(|f| f.index(index)).as_ref())?;
        }
        let mut index = 0;
        list.retain(|value| {
            let word = value.as_str().unwrap_or_default();
            let known = words.known.contains(&word);
            if !known {
                self.warnings.add(|| {
                    let hint = nearest(words, word).map(|known| format!("did you mean {known}?"));
                    let message = short(format!("unknown {} {word:?} is ignored", words.what));
                    Warning {
                        field: at.map(|f| f.index(index)),
                        hint,
                        ..Warning::new(ErrorKind::UnknownValue, message)
                    }
                });
            }
            index += 1;
            known
        });
        Ok(())
    }
}

/// Words of the spec that oci-spec 0.10 spells differently.
const MISSPELT: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

fn word(value: &mut Value, words: &Words, at: Option<&Field>) -> Result<()> {
    let Value::String(text) = &*value else {
        return Err(wrong_type(value, "a string", at));
    };
    if !words.known.contains(&text.as_str()) {
        let hint = nearest(words, text).map_or_else(
            || format!("must be one of {}", words.known.join(", ")),
            |known| format!("did you mean {known}?"),
        );
        return Err(named(ErrorKind::ConfigValue, format!("invalid {} {text:?}", words.what), at).hint(hint));
    }
    if let Some((_, theirs)) = MISSPELT.iter().find(|(ours, _)| ours == text) {
        *value = Value::from(*theirs);
    }
    Ok(())
}

/// The known word that differs only in case or in its prefix: `CHOWN` for `CAP_CHOWN`.
fn nearest(words: &Words, text: &str) -> Option<&'static str> {
    words.known.iter().copied().find(|known| {
        known.eq_ignore_ascii_case(text)
            || known.get(known.len().saturating_sub(text.len())..).is_some_and(|tail| {
                text.len() > 2
                    && tail.eq_ignore_ascii_case(text)
                    && known.get(..known.len() - text.len()).is_some_and(|head| head.ends_with('_'))
            })
    })
}

fn unsigned(value: &Value, max: u64, at: Option<&Field>) -> Result<()> {
    let fits = value.as_u64().is_some_and(|n| n <= max);
    expect_number(fits, value, &format!("a whole number from 0 to {max}"), at)
}

fn signed(value: &Value, min: i64, max: i64, at: Option<&Field>) -> Result<()> {
    let fits = value.as_i64().is_some_and(|n| (min..=max).contains(&n));
    expect_number(fits, value, &format!("a whole number from {min} to {max}"), at)
}

/// What oci-spec takes: `0-3,7`.
fn cpu_list(value: &Value, at: Option<&Field>) -> Result<()> {
    let Value::String(list) = value else { return Err(wrong_type(value, "a string", at)) };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_range = |part: &str| {
        part.split_once('-').map_or_else(|| is_number(part), |(a, b)| is_number(a) && is_number(b))
    };
    if list.split(',').all(is_range) {
        return Ok(());
    }
    Err(named(ErrorKind::ConfigValue, format!("must be CPU numbers and ranges like 0-3,7, is {list:?}"), at))
}

fn expect_number(fits: bool, value: &Value, wanted: &str, at: Option<&Field>) -> Result<()> {
    if fits {
        return Ok(());
    }
    if let Value::Number(number) = value {
        return Err(named(ErrorKind::ConfigValue, format!("must be {wanted}, is {number}"), at));
    }
    Err(wrong_type(value, wanted, at))
}

fn expect(fits: bool, value: &Value, wanted: &str, at: Option<&Field>) -> Result<()> {
    if fits { Ok(()) } else { Err(wrong_type(value, wanted, at)) }
}

fn wrong_type(value: &Value, wanted: &str, at: Option<&Field>) -> Error {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    named(ErrorKind::ConfigType, format!("must be {wanted}, is {found}"), at)
}

fn named(kind: ErrorKind, message: String, at: Option<&Field>) -> Error {
    let error = Error::new(kind, short(message));
    match at {
        Some(field) => error.field(field.clone()),
        None => error,
    }
}
