//! What a path says: a namespace, an object, and what is left for the object.
//!
//! **Invariant:** what is left reaches the object byte for byte; only the first two segments are decoded.

use std::borrow::Cow;

/// The two segments in front of a path, and the rest, which begins with `/` or is empty.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split<'a> {
    /// The namespace, as it is written.
    pub(super) namespace: &'a str,
    /// The object, as it is written; none where the path ends before it.
    pub(super) object: Option<&'a str>,
    /// The path within the object.
    pub(super) rest: &'a str,
}

/// Splits a path, which begins with `/`.
pub(super) fn split(path: &str) -> Split<'_> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let Some((namespace, after)) = path.split_once('/') else {
        return Split { namespace: path, object: None, rest: "" };
    };
    let end = after.find('/').unwrap_or(after.len());
    let (object, rest) = after.split_at_checked(end).unwrap_or((after, ""));
    Split { namespace, object: Some(object), rest }
}

/// Decodes `%XX`. None where that is malformed, or not UTF-8.
pub(super) fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            byte => byte,
        };
        decoded.push(byte);
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn digit(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_namespace_an_object_and_the_rest() {
        for (path, namespace, object, rest) in [
            ("/", "", None, ""),
            ("/KV", "KV", None, ""),
            ("/KV/", "KV", Some(""), ""),
            ("/KV/a", "KV", Some("a"), ""),
            ("/KV/a/", "KV", Some("a"), "/"),
            ("/KV/a/b/c", "KV", Some("a"), "/b/c"),
            ("/KV/a//c", "KV", Some("a"), "//c"),
            ("/KV//c", "KV", Some(""), "/c"),
            ("/KV/a%2Fb/c%2Fd", "KV", Some("a%2Fb"), "/c%2Fd"),
            ("//a", "", Some("a"), ""),
        ] {
            assert_eq!(split(path), Split { namespace, object, rest }, "{path}");
        }
    }

    #[test]
    fn a_segment_is_decoded_once_and_only_to_text() {
        for (segment, decoded) in [
            ("plain", Some("plain")),
            ("a%20b", Some("a b")),
            ("a%2Fb", Some("a/b")),
            ("%2525", Some("%25")),
            ("a+b", Some("a+b")),
            ("gr%C3%BC%c3%9f", Some("grüß")),
            ("%", None),
            ("%2", None),
            ("%2g", None),
            ("%+1", None),
            ("%ff", None),
            ("%C3", None),
        ] {
            assert_eq!(decode(segment).as_deref(), decoded, "{segment}");
        }
    }
}
