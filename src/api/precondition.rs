//! `If-Match` and `If-None-Match` on changes, and the `ETag` that goes with them.

use hyper::HeaderMap;
use hyper::header::{ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH};
use runlet_core::precondition::Precondition;
use warp::reply::Response;

use super::errors::ApiError;
use crate::http::reply;

/// What the headers of a request want to be so before anything is changed.
///
/// # Errors
/// `invalid` for headers that are no lists of entity tags, or that contradict each other.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, ApiError> {
    let wanted = texts(headers, IF_MATCH)?;
    match texts(headers, IF_NONE_MATCH)?.as_deref().map(str::trim) {
        None => {}
        Some("*") if wanted.is_none() => return Ok(Precondition::Absent),
        Some("*") => {
            return Err(ApiError::invalid("If-Match and If-None-Match contradict each other: send one of them"));
        }
        Some(_) => {
            return Err(ApiError::invalid("If-None-Match on a change: only `*` (make it, do not replace it) is known"));
        }
    }
    match wanted.as_deref().map(str::trim) {
        None => Ok(Precondition::None),
        Some("*") => Ok(Precondition::Exists),
        Some(list) => tags(list).map(Precondition::OneOf).ok_or_else(|| {
            ApiError::invalid(
                "If-Match is no list of entity tags: write the ETag of an answer, quotes included, or `*`",
            )
        }),
    }
}

/// All values of a header, joined as HTTP says.
fn texts(headers: &HeaderMap, name: HeaderName) -> Result<Option<String>, ApiError> {
    let mut all: Option<String> = None;
    for value in headers.get_all(&name) {
        let text = value.to_str().map_err(|_| ApiError::invalid(format!("header {name}: it is not ASCII")))?;
        match &mut all {
            None => all = Some(text.to_owned()),
            Some(all) => {
                all.push(',');
                all.push_str(text);
            }
        }
    }
    Ok(all)
}

/// The strong tags of a list; a weak one matches nothing, as HTTP says. `None` where it is no such list.
fn tags(list: &str) -> Option<Vec<String>> {
    let mut tags = Vec::new();
    for tag in list.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
        let (weak, tag) = tag.strip_prefix("W/").map_or((false, tag), |tag| (true, tag));
        let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
        if inner.contains('"') {
            return None;
        }
        if !weak {
            tags.push(inner.to_owned());
        }
    }
    Some(tags)
}

/// The response with the version of what is in it.
pub(super) fn with_etag(mut response: Response, version: &str) -> Response {
    reply::set(&mut response, ETAG, &format!("\"{version}\""));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(HeaderName, &'static str)]) -> Option<Precondition> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, hyper::header::HeaderValue::from_static(value));
        }
        precondition(&headers).ok()
    }

    #[test]
    fn the_headers_are_read_as_http_says() {
        let one_of = |tags: &[&str]| Some(Precondition::OneOf(tags.iter().map(|tag| (*tag).to_owned()).collect()));
        assert_eq!(read(&[]), Some(Precondition::None));
        assert_eq!(read(&[(IF_MATCH, "*")]), Some(Precondition::Exists));
        assert_eq!(read(&[(IF_NONE_MATCH, "*")]), Some(Precondition::Absent));
        assert_eq!(read(&[(IF_MATCH, "\"a\", \"b\"")]), one_of(&["a", "b"]));
        assert_eq!(read(&[(IF_MATCH, "\"a\""), (IF_MATCH, "\"b\"")]), one_of(&["a", "b"]));
        assert_eq!(read(&[(IF_MATCH, "W/\"a\"")]), one_of(&[]), "a weak tag matches nothing");
        for bad in [
            &[(IF_MATCH, "a")][..],
            &[(IF_MATCH, "\"a")],
            &[(IF_NONE_MATCH, "\"a\"")],
            &[(IF_MATCH, "*"), (IF_NONE_MATCH, "*")],
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
