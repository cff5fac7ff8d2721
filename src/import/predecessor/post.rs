//! `post(post_id, user_id, content, image_urls, hashtags, created_at)`: a post each, under its id; again replaces it.

use serde_json::{Value, json};

use super::reader::{Record, Shape, list, moment, text};
use super::{Rows, Translation};
use crate::import::row::Refusal;

pub(super) struct Posts {
    pub(super) time_zone: String,
}

impl Translation for Posts {
    fn shape(&self) -> Shape {
        let columns = vec![
            text("post_id", true),
            text("user_id", true),
            text("content", true),
            list("hashtags"),
            list("image_urls"),
            moment("created_at", &self.time_zone),
        ];
        Shape { key: &["post_id"], columns, is_grouped: false }
    }

    fn translate(&mut self, record: &Record) -> Rows {
        let [post, user, content, hashtags, images, at] = &record[..] else {
            unreachable!("six columns were asked for")
        };
        let Some(post) = post else {
            // Without its id each run would make another.
            return Rows::One(Err(Refusal::new("missing_field", "post_id is NULL")));
        };
        let mut body = json!({
            "postId": post,
            "userId": user,
            "content": content.as_deref().unwrap_or(""),
            "hashtags": hashtags.as_deref().map_or(Vec::new(), |json| items(json, split_hashtags)),
            "imageUrls": images.as_deref().map_or(Vec::new(), |json| items(json, split_urls)),
        });
        if let Some(ms) = at.as_ref().and_then(|ms| ms.parse::<i64>().ok()) {
            body["createdAt"] =
                json!(jiff::Timestamp::from_millisecond(ms).map_or(json!(ms), |at| json!(at.to_string())));
        }
        Rows::One(Ok(body.to_string().into_bytes()))
    }
}

/// The items of a list that is JSON: an array, or text that is an array itself or is taken apart by `split`.
fn items(json: &str, split: fn(&str) -> Vec<String>) -> Vec<String> {
    match serde_json::from_str(json) {
        Ok(Value::Array(items)) => items.into_iter().filter_map(item).collect(),
        Ok(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(Value::Array(items)) => items.into_iter().filter_map(item).collect(),
            _ => split(&text),
        },
        _ => Vec::new(),
    }
}

fn item(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text).filter(|text| !text.is_empty()),
        Value::Null => None,
        other => Some(other.to_string()),
    }
}

fn split_hashtags(text: &str) -> Vec<String> {
    text.split([',', ' ', '\n'])
        .map(|tag| tag.trim_start_matches('#').to_owned())
        .filter(|tag| !tag.is_empty())
        .collect()
}

/// A comma parts two urls only where another begins behind it: it may be within one.
fn split_urls(text: &str) -> Vec<String> {
    let begins = |part: &str| ["http://", "https://", "/"].iter().any(|start| part.trim_start().starts_with(start));
    let mut urls: Vec<String> = Vec::new();
    for part in text.split(',') {
        match urls.last_mut() {
            Some(last) if !begins(part) => *last = format!("{last},{part}"),
            _ => urls.push(part.trim_start().to_owned()),
        }
    }
    urls.into_iter().map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_from_arrays_json_and_text() {
        for (json, expected) in [
            (r#"["/a","/b",null,""]"#, vec!["/a", "/b"]),
            (r#""[\"/a\",\"/b\"]""#, vec!["/a", "/b"]),
            (r#""https://x/a?size=1,2,https://x/b""#, vec!["https://x/a?size=1,2", "https://x/b"]),
            (r#""/a, /b""#, vec!["/a", "/b"]),
            (r#""""#, vec![]),
            ("null", vec![]),
        ] {
            assert_eq!(items(json, split_urls), expected, "{json}");
        }
        assert_eq!(items(r##""#cat, dog""##, split_hashtags), ["cat", "dog"]);
    }
}
