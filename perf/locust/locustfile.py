"""The predecessor's load, call for call: 40 % likes, 20 % searches, 20 % clicks, 20 % page views.

Users 1 to 100, posts 1 to 1,000 (make seed-posts). Each simulated user waits between two calls, so that the number of
users is the number of calls a second; FLOOR=1 asks for /healthz/live instead: what Locust itself needs.
"""

import os
import random

from locust import HttpUser, constant_throughput, task

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


class Floor(HttpUser):
    abstract = not FLOOR
    wait_time = constant_throughput(1)

    @task
    def live(self):
        self.client.get("/healthz/live")


class Visitor(HttpUser):
    abstract = FLOOR
    wait_time = constant_throughput(1)

    @task(4)
    def like(self):
        self.client.post("/api/posts/like", json={"userId": user(), "postId": random.randint(1, 1000)})

    @task(2)
    def search(self):
        self.client.get("/api/search", params={"userId": user(), "keyword": KEYWORD}, name="/api/search")

    @task(2)
    def click(self):
        self.client.post("/api/users/events", json=event("CLICK"), name="/api/users/events CLICK")

    @task(2)
    def page_view(self):
        self.client.post("/api/users/events", json=event("PAGE_VIEW"), name="/api/users/events PAGE_VIEW")
