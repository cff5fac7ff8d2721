//! `post_like(user_id, post_id, liked_at)`: a LIKE each. Idempotent in itself, and the id is that of user and post.

use serde_json::json;
use uuid::Uuid;

use super::reader::{Record, Shape, moment, text};
use super::{NAMESPACE, Rows, Translation};

pub(super) struct Likes {
    pub(super) time_zone: String,
}

impl Translation for Likes {
    fn shape(&self) -> Shape {
        let columns = vec![text("user_id", true), text("post_id", true), moment("liked_at", &self.time_zone)];
        Shape { key: &["user_id", "post_id"], columns, is_grouped: false }
    }

    fn translate(&mut self, record: &Record) -> Rows {
        let [user, post, at] = &record[..] else { unreachable!("three columns were asked for") };
        let name = format!("like\0{}\0{}", user.as_deref().unwrap_or(""), post.as_deref().unwrap_or(""));
        let at: Option<i64> = at.as_ref().and_then(|ms| ms.parse().ok());
        let event = json!({
            "eventId": Uuid::new_v5(&NAMESPACE, name.as_bytes()),
            "eventType": "LIKE",
            "userId": user,
            "timestamp": at,
            "metadata": {"postId": post},
        });
        Rows::One(Ok(event.to_string().into_bytes()))
    }
}
