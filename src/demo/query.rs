//! The query of a url, as an author reads it, and the answers to requests that are not right.

use std::fmt::Display;
use std::str::FromStr;

use http::header::{ALLOW, HeaderValue};

use crate::error::{Error, Result};
use crate::message::{Request, Response, response as respond};

/// The pairs of a url's query, decoded, in order.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

/// What is wrong with a query: fragments that name the parameter and what it was.
pub type Complaint = String;

/// Why there is no answer, so that `?` takes both.
#[derive(Debug)]
pub enum Refused {
    /// The query is not right.
    Query(Complaint),
    /// Something failed.
    Failed(Error),
}

impl From<Complaint> for Refused {
    fn from(complaint: Complaint) -> Self {
        Self::Query(complaint)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Query {
    /// Reads the query of a request's url.
    pub fn of(request: &Request) -> Self {
        let pairs = request.uri().query().unwrap_or_default().split('&');
        let pairs = pairs.filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// Returns the value of the first parameter of that name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns the values of all parameters of that name, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns whether there is a parameter of that name, which is not `false`.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value != "false")
    }

    /// Returns the values of `first` and of `second`, each with its other, in order.
    ///
    /// # Errors
    /// Where one has no other.
    pub fn pairs(&self, first: &str, second: &str) -> Result<Vec<(&str, &str)>, Complaint> {
        let (firsts, seconds) = (self.all(first).count(), self.all(second).count());
        if firsts != seconds {
            return Err(format!("the url has ?{first}= {firsts} and ?{second}= {seconds} times"));
        }
        Ok(self.all(first).zip(self.all(second)).collect())
    }

    /// Returns the value of a parameter that must be there.
    ///
    /// # Errors
    /// Where it is not.
    pub fn required(&self, name: &str) -> Result<&str, Complaint> {
        self.text(name).ok_or_else(|| format!("the url lacks ?{name}="))
    }

    /// Returns the value of a parameter as a number, where it is there.
    ///
    /// # Errors
    /// Where it is not such a number; the complaint names it.
    pub fn number<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Complaint> {
        let parse = |text: &str| {
            text.parse().map_err(|error| format!("{name}={text:?} is not a good number: {error}"))
        };
        self.text(name).map(parse).transpose()
    }
}

/// Decodes `+` and `%20`. What is no escape stands for itself; what is not UTF-8 is replaced.
fn decode(text: &str) -> String {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..]) if let Some(byte) = escaped(*high, *low) => {
                decoded.push(byte);
                rest = after;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(*byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Returns the byte that two hex digits stand for.
fn escaped(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// Makes a response of status 400 that says what is wrong.
///
/// # Errors
/// None: 400 is a good status.
pub fn bad_request(complaint: impl Into<String>) -> Result<Response> {
    respond::status(400, complaint)
}

/// Makes a response of status 405 that says which methods there are.
///
/// # Errors
/// None: 405 is a good status.
pub fn not_allowed(request: &Request, allowed: &'static str) -> Result<Response> {
    let text = format!("{} is not among {allowed}", request.method());
    let mut response = respond::status(405, text)?;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::IntoRequest;

    fn query(text: &str) -> Query {
        Query::of(&format!("http://do/?{text}").into_request().unwrap())
    }

    #[test]
    fn a_query_is_decoded_and_keeps_its_order() {
        let query = query("a=1&b=x%20y+z%2B&&a=2&c&d=%&e=%zz%4&f=%c3%a9");
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        for (name, value) in
            [("b", "x y z+"), ("c", ""), ("d", "%"), ("e", "%zz%4"), ("f", "\u{e9}")]
        {
            assert_eq!(query.text(name), Some(value), "{name}");
        }
        assert_eq!(query.text("g"), None);
    }

    #[test]
    fn a_flag_is_there_or_not_and_pairs_are_whole() {
        let query = query("a&b=true&c=false&k=1&v=x&k=2&v=y");
        assert_eq!(["a", "b", "c", "d"].map(|name| query.flag(name)), [true, true, false, false]);
        assert_eq!(query.pairs("k", "v"), Ok(vec![("1", "x"), ("2", "y")]));
        assert_eq!(query.pairs("none", "either"), Ok(vec![]));
        assert!(query.pairs("k", "a").unwrap_err().contains("?k= 2 and ?a= 1"));
    }

    #[test]
    fn a_bad_number_is_named() {
        let query = query("by=-3&bad=4x&n=");
        assert_eq!(query.number("by"), Ok(Some(-3)));
        assert_eq!(query.number::<u8>("none"), Ok(None));
        for name in ["bad", "n"] {
            let complaint = query.number::<u64>(name).unwrap_err();
            assert!(complaint.starts_with(&format!("{name}=\"")), "{complaint}");
        }
        assert!(query.required("gone").unwrap_err().contains("?gone="));
    }
}
