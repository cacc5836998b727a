//! What xDS has no word for: JSON in `metadata.filter_metadata["mesh"]`, beside what Envoy understands by itself.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The key below `filter_metadata`, and below a node's own metadata.
pub const KEY: &str = "mesh";

/// Nesting beyond which nobody's JSON is read: deeper input is refused, not recursed into.
const DEPTH_MAX: usize = 32;

/// Metadata that carries `extra` and nothing else.
#[must_use]
pub fn carrying<T: Serialize>(extra: &T) -> Metadata {
    let json = serde_json::to_value(extra).expect("extras have string keys and serialise to JSON");
    let fields = match value_from_json(&json).kind {
        Some(value::Kind::StructValue(fields)) => fields,
        _ => Struct { fields: HashMap::new() },
    };
    Metadata { filter_metadata: [(KEY.to_owned(), fields)].into(), typed_filter_metadata: HashMap::new() }
}

/// What `metadata` carries for us; none when another control plane made it.
///
/// # Errors
/// When it is there and makes no sense.
pub fn carried<T: DeserializeOwned>(metadata: Option<&Metadata>) -> Result<Option<T>, serde_json::Error> {
    match metadata.and_then(|metadata| metadata.filter_metadata.get(KEY)) {
        Some(fields) => from_struct(fields).map(Some),
        None => Ok(None),
    }
}

/// Reads a protobuf struct as any type that JSON can fill.
///
/// # Errors
/// When it does not fit, or nests too deep.
pub fn from_struct<T: DeserializeOwned>(fields: &Struct) -> Result<T, serde_json::Error> {
    serde_json::from_value(struct_to_json(fields, 0)?)
}

/// A JSON object as a protobuf struct; anything else is an empty one.
#[must_use]
pub fn to_struct(json: &serde_json::Value) -> Struct {
    match value_from_json(json).kind {
        Some(value::Kind::StructValue(fields)) => fields,
        _ => Struct { fields: HashMap::new() },
    }
}

fn value_from_json(json: &serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => value::Kind::NullValue(0),
        serde_json::Value::Bool(flag) => value::Kind::BoolValue(*flag),
        // Protobuf's struct knows doubles only; every integer we carry stays below 2^53, and ids are strings.
        serde_json::Value::Number(number) => value::Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => value::Kind::StringValue(text.clone()),
        serde_json::Value::Array(items) => {
            value::Kind::ListValue(ListValue { values: items.iter().map(value_from_json).collect() })
        }
        serde_json::Value::Object(entries) => value::Kind::StructValue(Struct {
            fields: entries.iter().map(|(key, entry)| (key.clone(), value_from_json(entry))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

fn struct_to_json(fields: &Struct, depth: usize) -> Result<serde_json::Value, serde_json::Error> {
    if depth > DEPTH_MAX {
        return Err(serde::de::Error::custom(format!("nested deeper than {DEPTH_MAX}")));
    }
    let mut object = serde_json::Map::new();
    for (key, entry) in &fields.fields {
        object.insert(key.clone(), value_to_json(entry, depth + 1)?);
    }
    Ok(serde_json::Value::Object(object))
}

fn value_to_json(entry: &Value, depth: usize) -> Result<serde_json::Value, serde_json::Error> {
    if depth > DEPTH_MAX {
        return Err(serde::de::Error::custom(format!("nested deeper than {DEPTH_MAX}")));
    }
    Ok(match &entry.kind {
        None | Some(value::Kind::NullValue(_)) => serde_json::Value::Null,
        Some(value::Kind::BoolValue(flag)) => (*flag).into(),
        Some(value::Kind::NumberValue(number)) => number_to_json(*number),
        Some(value::Kind::StringValue(text)) => text.clone().into(),
        Some(value::Kind::StructValue(fields)) => struct_to_json(fields, depth)?,
        Some(value::Kind::ListValue(list)) => {
            let items: Result<Vec<_>, _> = list.values.iter().map(|item| value_to_json(item, depth + 1)).collect();
            serde_json::Value::Array(items?)
        }
    })
}

/// Whole numbers come back as integers, so that they fit integer fields.
fn number_to_json(number: f64) -> serde_json::Value {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    if number.fract() == 0.0 && number.abs() < EXACT { (number as i64).into() } else { number.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{carried, carrying};

    #[test]
    fn json_survives_the_struct() {
        for json in [json!({"a": 1, "b": [true, null, "x", {"c": 1.5}], "d": {}}), json!({}), json!({"n": u32::MAX})] {
            assert_eq!(carried::<Value>(Some(&carrying(&json))).unwrap(), Some(json));
        }
        assert_eq!(carried::<Value>(None).unwrap(), None);
    }

    #[test]
    fn nesting_has_a_bound() {
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!({ "a": deep });
        }
        assert!(carried::<Value>(Some(&carrying(&deep))).is_err());
    }
}
