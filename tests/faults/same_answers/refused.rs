//! What is refused, and how: a status, a tag, a field. All four word it alike.

use serde_json::json;

use super::programs::{Reply, Request};

/// Each is as good as any other: none of them changes anything.
pub(crate) fn all() -> Vec<(Request, Reply)> {
    let get = |path: &str, status, tag, field| (Request::get(path), Reply::problem(status, tag, Some(field)));
    let bare = |request, status, tag| (request, Reply::problem(status, tag, None));
    let invalid = |path: &str, field| get(path, 400, "invalid_parameter", field);
    let json = |path: &str, body: &str| Request::with(path, "application/json", body);
    let mut all = vec![
        invalid("/api/search", "keyword"),
        invalid("/api/search?keyword=%20", "keyword"),
        invalid("/api/search?keyword=a&userId=null", "userId"),
        invalid("/api/search?keyword=a&limit=101", "limit"),
        invalid("/api/search/recent/undefined", "userId"),
        invalid("/api/search/recent/ann?limit=11", "limit"),
        invalid("/api/posts/p1/like?userId=NaN", "userId"),
        invalid("/api/posts/undefined", "postId"),
        invalid("/api/statistics?componentId=0", "componentId"),
        invalid("/api/statistics?eventType=TOGGLE", "eventType"),
        invalid("/api/statistics?from=2&to=1", "from"),
        invalid("/api/statistics?from=yesterday", "from"),
        invalid("/api/statistics?widow=1h", "widow"),
        invalid("/api/export?until=1", "until"),
        invalid("/api/statistics?postId=undefined", "postId"),
        get("/api/statistics?postId=1&componentId=1", 400, "missing_range", "from"),
        get("/api/statistics?postId=1&componentId=1&from=1&to=2", 400, "range_not_kept", "from"),
        invalid("/api/statistics/popular/keywords?window=1y", "window"),
        invalid("/api/statistics/popular/keywords?mode=cold", "mode"),
        invalid("/api/statistics/popular/pages?mode=hot", "mode"),
        invalid("/api/statistics/popular/posts?by=name", "by"),
        invalid("/api/statistics/popular/components?limit=0", "limit"),
        invalid("/api/statistics/rankings/keywords?mode=hot", "mode"),
        invalid("/api/statistics/rankings/pages?from=2&to=1", "from"),
        get("/api/statistics/rankings/pages?cursor=zz", 400, "invalid_cursor", "cursor"),
        invalid("/api/statistics/timeseries?interval=week", "interval"),
        get("/api/statistics/timeseries?interval=hour&from=0", 400, "too_many_points", "from"),
        invalid("/api/statistics/users?from=2&to=1", "from"),
        invalid("/api/statistics/users?window=1h&from=1", "window"),
        get("/api/statistics/users?from=1&to=2", 400, "range_not_kept", "from"),
        invalid("/api/export?format=xml", "format"),
        invalid("/api/export?eventType=TOGGLE", "eventType"),
        invalid("/api/export?from=2&to=1", "from"),
        bare(Request::get("/api/search?keyword=%ff"), 400, "invalid_encoding"),
        bare(Request::get("/api/nothing"), 404, "not_found"),
        bare(Request::get("/api/posts/a/b"), 404, "not_found"),
        bare(Request::get("/api/posts"), 405, "method_not_allowed"),
        bare(Request::get("/api/users/ann"), 405, "method_not_allowed"),
        bare(Request::delete("/api/events"), 405, "method_not_allowed"),
        bare(json("/api/events", ""), 400, "empty_body"),
        bare(json("/api/events", "{"), 400, "invalid_json"),
        bare(json("/api/posts", "[]"), 400, "invalid_json"),
        bare(Request::with("/api/events", "text/html", "<p>"), 415, "unsupported_content_type"),
        (Request::delete("/api/users/NaN"), Reply::problem(400, "invalid_parameter", Some("userId"))),
        (Request::delete("/api/search/recent/ann?keyword="), Reply::problem(400, "invalid_parameter", Some("keyword"))),
    ];
    for (path, body, tag, field) in [
        ("/api/posts", json!({"content":"c"}), "missing_field", "userId"),
        ("/api/posts", json!({"userId":1,"content":" "}), "missing_field", "content"),
        ("/api/posts", json!({"userId":1,"content":"c","hashtags":"oak"}), "invalid_field", "hashtags"),
        ("/api/posts", json!({"userId":1,"content":"c","postId":"null"}), "invalid_field", "postId"),
        ("/api/posts", json!({"userId":1,"content":"c","createdAt":"then"}), "invalid_field", "createdAt"),
        ("/api/posts/like", json!({"userId":1}), "missing_field", "postId"),
        ("/api/posts/like", json!({"postId":1}), "missing_field", "userId"),
        ("/api/posts/like", json!({"userId":1,"postId":1,"action":"love"}), "invalid_field", "action"),
        ("/api/posts/like", json!({"userId":1,"postId":1,"eventId":"x"}), "invalid_field", "eventId"),
    ] {
        all.push((Request::post(path, &body), Reply::problem(400, tag, Some(field))));
    }
    let nobody = Request::put("/api/posts/p1/like", &json!({}));
    all.push((nobody, Reply::problem(400, "missing_field", Some("userId"))));
    all
}
