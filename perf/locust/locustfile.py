"""The predecessor's load, call for call: 40 % likes, 20 % searches, 20 % clicks, 20 % page views.

Users 1 to 100, posts 1 to 1,000 (make seed-posts). Each simulated user makes one call a second, so that the number of
users is the number of calls a second, and begins somewhere within a second: else those that were made together would
go on calling together. Locust's fast client, since the other one takes a whole core for 900 calls a second. FLOOR=1 asks
for /healthz/live instead: what Locust itself needs.
"""

import os
import random
import time
import urllib.parse

import gevent
from locust import FastHttpUser, task

KEYWORD = "고양이"
FLOOR = os.environ.get("FLOOR") == "1"


def user():
    return random.randint(1, 100)


def event(kind):
    component = random.randint(1, 50)
    return {
        "eventType": kind,
        "userId": user(),
        "sessionId": f"session-{random.randint(1, 1000)}",
        "metadata": {"componentId": component, "elementId": f"element-{component}"},
    }


class Caller(FastHttpUser):
    abstract = True

    def on_start(self):
        gevent.sleep(random.random())
        self.call_at = time.time()

    def wait_time(self):
        # Not constant_throughput: it counts from when a user was made, which the users of one moment have in common.
        now = time.time()
        self.call_at = max(self.call_at + 1, now)
        return self.call_at - now


class Floor(Caller):
    abstract = not FLOOR

    @task
    def live(self):
        self.client.get("/healthz/live")


class Visitor(Caller):
    abstract = FLOOR

    @task(4)
    def like(self):
        self.client.post("/api/posts/like", json={"userId": user(), "postId": random.randint(1, 1000)})

    @task(2)
    def search(self):
        asked = urllib.parse.urlencode({"userId": user(), "keyword": KEYWORD})
        self.client.get(f"/api/search?{asked}", name="/api/search")

    @task(2)
    def click(self):
        self.client.post("/api/users/events", json=event("CLICK"), name="/api/users/events CLICK")

    @task(2)
    def page_view(self):
        self.client.post("/api/users/events", json=event("PAGE_VIEW"), name="/api/users/events PAGE_VIEW")
