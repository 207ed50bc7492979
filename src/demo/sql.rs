//! `PROBE`: its SQL database, spoken to in JSON.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value as Json, json};

use super::query::{Complaint, Refused};
use super::reflect::hex;
use crate::error::Result;
use crate::message::{Request, Response, response as respond};
use crate::object::Sql;
use crate::storage::sql::bindings::Values;
use crate::storage::sql::value::Value;

/// What is asked: statements, and the bindings of the last one, by number or by name.
#[derive(Debug)]
pub struct Statement {
    text: String,
    values: Values,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: String,
    #[serde(default)]
    bindings: Json,
}

/// What came of them.
#[derive(Debug, Serialize)]
pub struct Outcome {
    columns: Vec<String>,
    rows: Vec<Vec<Json>>,
    rows_read: u64,
    rows_written: u64,
    database_bytes: u64,
}

/// Runs the statements of the body; answers what came of them as JSON.
///
/// # Errors
/// Where the body is no statement; what SQL says of it.
pub async fn answer(sql: &Sql, request: Request) -> Result<Response, Refused> {
    let statement = Statement::of(request).await?;
    let statement = statement.ok_or_else(|| "the body has no statement".to_owned())?;
    Ok(respond::json(&statement.run(sql)?)?)
}

impl Statement {
    /// Reads the body of a request; none where it has none.
    ///
    /// # Errors
    /// Where the body was cut short, or is no statement.
    pub async fn of(request: Request) -> Result<Option<Self>, Refused> {
        let body = request.into_body().bytes_limited(BODY_BYTES_MAX).await?;
        if body.is_empty() {
            return Ok(None);
        }
        let Asked { sql: text, bindings } = serde_json::from_slice(&body)
            .map_err(|error| format!("the body is not {{\"sql\": …, \"bindings\": …}}: {error}"))?;
        Ok(Some(Self { text, values: values(bindings)? }))
    }

    /// Runs it.
    ///
    /// # Errors
    /// What SQL says of it.
    pub fn run(self, sql: &Sql) -> Result<Outcome> {
        let mut cursor = sql.exec(&self.text, self.values)?;
        let rows = cursor.by_ref().map(|row| row.into_values().into_iter().map(to_json).collect());
        Ok(Outcome {
            rows: rows.collect(),
            columns: cursor.column_names().to_vec(),
            rows_read: cursor.rows_read(),
            rows_written: cursor.rows_written(),
            database_bytes: sql.size_bytes()?,
        })
    }
}

fn values(bindings: Json) -> Result<Values, Complaint> {
    match bindings {
        Json::Null => Ok(Values::Positional(Vec::new())),
        Json::Array(values) => {
            values.into_iter().map(of_json).collect::<Result<_, _>>().map(Values::Positional)
        }
        Json::Object(values) => values
            .into_iter()
            .map(|(name, value)| Ok((name.into(), of_json(value)?)))
            .collect::<Result<_, _>>()
            .map(Values::Named),
        other => Err(format!("bindings {other} are neither an array nor an object")),
    }
}

/// Bytes are `{"hex": "00ff"}` or `{"base64": "AP8="}`.
fn of_json(json: Json) -> Result<Value, Complaint> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::from(truth),
        Json::String(text) => Value::Text(text),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, Some(real)) if number.is_f64() => Value::Real(real),
            _ => return Err(format!("{number} is too large for an integer of sql")),
        },
        Json::Object(object) => {
            let mut entries = object.iter();
            let bytes = match (entries.next(), entries.next()) {
                (Some((name, Json::String(text))), None) => match name.as_str() {
                    "hex" => of_hex(text),
                    "base64" => of_base64(text),
                    _ => None,
                },
                _ => None,
            };
            let wrong = || format!("{} is no value of sql", Json::Object(object.clone()));
            Value::Blob(Bytes::from(bytes.ok_or_else(wrong)?))
        }
        other => return Err(format!("{other} is no value of sql")),
    })
}

/// Bytes become `{"hex": …}`; what JSON has no number for, as infinity, `{"real": …}`.
fn to_json(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(number) => number.into(),
        Value::Real(number) => match Number::from_f64(number) {
            Some(number) => Json::Number(number),
            None => json!({"real": number.to_string()}),
        },
        Value::Text(text) => Json::String(text),
        Value::Blob(bytes) => json!({"hex": hex(&bytes)}),
    }
}

fn of_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<Vec<u32>>>()?;
    let (pairs, []) = digits.as_chunks() else { return None };
    pairs.iter().map(|[high, low]| u8::try_from(high << 4 | low).ok()).collect()
}

fn of_base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let six = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    // What is left is padding, and less than a digit.
    (count < 6 && bits == 0).then_some(bytes)
}

const BODY_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_becomes_values_and_values_json() {
        let blob = Value::Blob(Bytes::from_static(b"\x00\xff"));
        for (json, value, back) in [
            (json!(null), Value::Null, json!(null)),
            (json!(true), Value::Integer(1), json!(1)),
            (json!(i64::MIN), Value::Integer(i64::MIN), json!(i64::MIN)),
            (json!(1.0), Value::Real(1.0), json!(1.0)),
            (json!("a"), Value::Text("a".to_owned()), json!("a")),
            (json!({"hex": "00fF"}), blob.clone(), json!({"hex": "00ff"})),
            (json!({"base64": "AP8="}), blob.clone(), json!({"hex": "00ff"})),
            (json!({"base64": "AP8"}), blob, json!({"hex": "00ff"})),
            (json!({"base64": ""}), Value::Blob(Bytes::new()), json!({"hex": ""})),
        ] {
            assert_eq!(of_json(json.clone()), Ok(value.clone()), "{json}");
            assert_eq!(to_json(value), back, "{json}");
        }
        assert_eq!(to_json(Value::Real(f64::INFINITY)), json!({"real": "inf"}));
        for json in [
            json!(u64::MAX),
            json!([]),
            json!({}),
            json!({"hex": "0"}),
            json!({"hex": "0g"}),
            json!({"hex": 1}),
            json!({"hex": "", "base64": ""}),
            json!({"base64": "A"}),
            json!({"base64": "AP9="}),
            json!({"base64": "A=A="}),
        ] {
            let complaint = of_json(json.clone()).unwrap_err();
            assert!(complaint.contains(&json.to_string()), "{complaint}");
        }
    }
}
