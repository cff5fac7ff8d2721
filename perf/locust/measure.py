"""Runs Locust against a tracker of our own and writes the predecessor's tables beside ours. Started by perf/locust/run.

For each number of users: first the trivial GET (FLOOR=1), what Locust itself needs; then the load. Beside Locust's times
stand the server's own (its histogram, read before and after), and the processor time of every process as a share of
one core (/proc), stores included.
"""

import csv
import datetime
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the choice of a backend without a screen)

HERE = pathlib.Path(__file__).parent
SERVICES = pathlib.Path(os.environ["PERF_DIR"])
SECONDS = int(os.environ.get("LOCUST_SECONDS", "300"))
FLOOR_SECONDS = min(SECONDS, 30)
USERS = [int(users) for users in os.environ.get("LOCUST_USERS", "500 1000").split()]
START_WAIT_SECONDS = 30
# What its README says, on a MacBook Air M1: requests/s, average ms, 95 % ms, CPU.
PREDECESSOR = {500: ("500", "63", "-", "40 %"), 1000: ("1,000", "96", "180 to 220", "70 %")}
HISTOGRAM = "event_tracker_http_request_duration_seconds"


def say(text):
    print(f"event-tracker: {text}", file=sys.stderr, flush=True)


# ---- the tracker ----


def start_tracker():
    binary, log = os.environ["BIN"], SERVICES / "tracker.log"
    for _ in range(5):
        port = random.randint(20000, 29999)
        settings = {
            "LOG": "warn",
            **os.environ,
            "LISTEN": f"127.0.0.1:{port}",
            "DATA_DIR": str(SERVICES / "tracker"),
        }
        with open(log, "w") as out:
            tracker = subprocess.Popen([binary, "serve"], env=settings, stdout=out, stderr=out)
        url, deadline = f"http://127.0.0.1:{port}", time.time() + START_WAIT_SECONDS
        while tracker.poll() is None and time.time() < deadline:
            if is_ready(url):
                return tracker, url
            time.sleep(0.2)
        if tracker.poll() is None:
            tracker.kill()
            break
    sys.exit(f"the tracker is not ready: {log.read_text()[-2000:]}")


def is_ready(url):
    try:
        return urllib.request.urlopen(f"{url}/healthz/ready", timeout=5).status == 200
    except OSError:
        return False


def histogram(url):
    """Sum of seconds, and requests by upper bound, cumulative."""
    text = urllib.request.urlopen(f"{url}/metrics", timeout=10).read().decode()
    total = float(re.search(rf"^{HISTOGRAM}_sum (\S+)", text, re.M)[1])
    buckets = re.findall(rf'^{HISTOGRAM}_bucket{{le="([^"]+)"}} (\d+)', text, re.M)
    return total, [(float(bound.replace("+Inf", "inf")), int(count)) for bound, count in buckets]


def server_times(before, after):
    """Average ms, and the bounds in ms between which the 95th percentile lies."""
    counts = [(bound, count - old) for (bound, count), (_, old) in zip(after[1], before[1])]
    requests = counts[-1][1]
    at = next(i for i, (_, count) in enumerate(counts) if count >= requests * 0.95)
    lower = counts[at - 1][0] if at else 0
    return (after[0] - before[0]) / requests * 1e3, lower * 1e3, counts[at][0] * 1e3


# ---- processes ----


def ticks_of(process):
    """Of a process and its ended, waited-for children: user and system."""
    try:
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:15])


def cpu(tracker):
    """Seconds of processor so far: tracker, PostgreSQL, Redis."""
    main = (SERVICES / "pg/postmaster.pid").read_text().split()[0]
    redis = (SERVICES / "run/redis.pid").read_text().strip()
    children = pathlib.Path(f"/proc/{main}/task/{main}/children").read_text().split()
    ticks = [ticks_of(tracker.pid), sum(map(ticks_of, [main, *children])), ticks_of(redis)]
    return [count / os.sysconf("SC_CLK_TCK") for count in ticks]


class Sampler:
    """Notes the processor time once a second while a run goes on."""

    def __init__(self, tracker):
        self.tracker, self.samples, self.ended = tracker, [], threading.Event()
        self.thread = threading.Thread(target=self.sample, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def sample(self):
        while True:
            self.samples.append((time.time(), cpu(self.tracker)))
            if self.ended.wait(1):
                return

    def shares(self, begun, ended):
        """Of one core, in percent."""
        inside = [sample for sample in self.samples if begun <= sample[0] <= ended]
        (first, before), (last, after) = inside[0], inside[-1]
        return [(new - old) / (last - first) * 100 for old, new in zip(before, after)]


# ---- one run ----


def locust(url, users, seconds, floor):
    """Rows of Locust's statistics by name, its history, and the processor time it used."""
    prefix = SERVICES / ("floor" if floor else f"load{users}")
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--headless", "--host", url]
    command += ["-u", str(users), "-r", "200", "-t", f"{seconds}s", "--reset-stats", "--only-summary", "--csv", str(prefix)]
    command += ["--csv-full-history", "--exit-code-on-error", "0"]
    before = os.times()
    with open(f"{prefix}.log", "w") as log:
        subprocess.run(command, env={**os.environ, "FLOOR": str(int(floor))}, stdout=log, stderr=log, check=True,
                       timeout=seconds + 120)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    with open(f"{prefix}_stats.csv") as rows:
        stats = {row["Name"]: row for row in csv.DictReader(rows)}
    with open(f"{prefix}_stats_history.csv") as rows:
        history = [row for row in csv.DictReader(rows) if row["Name"] == "Aggregated"]
    return stats, history, used


def figures(row):
    number = lambda name: float(row[name])  # noqa: E731
    return {
        "rate": number("Requests/s"),
        "average": number("Average Response Time"),
        "p95": number("95%"),
        "failures": int(row["Failure Count"]),
        "requests": int(row["Request Count"]),
    }


def measure(tracker, url, users):
    say(f"{users} users: the trivial GET, {FLOOR_SECONDS} s")
    floor, _, _ = locust(url, users, FLOOR_SECONDS, True)
    say(f"{users} users: the load, {SECONDS} s")
    times = histogram(url)
    with Sampler(tracker) as sampler:
        stats, history, used = locust(url, users, SECONDS, False)
    server = server_times(times, histogram(url))
    # With all users there: Locust's own start and the ramp are no load.
    history = [row for row in history if int(row["User Count"]) == users]
    shares = sampler.shares(int(history[0]["Timestamp"]), int(history[-1]["Timestamp"]))
    if tracker.poll() is not None:
        sys.exit(f"the tracker is gone: {(SERVICES / 'tracker.log').read_text()[-2000:]}")
    return {
        "users": users,
        "all": figures(stats["Aggregated"]),
        "by_call": {name: figures(row) for name, row in stats.items() if name != "Aggregated"},
        "floor": figures(floor["Aggregated"]),
        "server": server,
        "cpu": shares,
        "locust_cpu": used / SECONDS * 100,
        "history": history,
    }


# ---- the report ----


def report(runs, plot):
    lines = [f"# The predecessor's load, {now():%Y-%m-%d %H:%M} UTC", "", *setting(), ""]
    for run in runs:
        lines += table(run) + [""]
    lines += ["Each call by itself, as Locust saw it:", "", *calls(runs), "", f"![times]({plot.name})", ""]
    return "\n".join(lines)


def now():
    return datetime.datetime.now(datetime.UTC)


def setting():
    model = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    build = "release build" if "/release/" in os.environ["BIN"] else "**debug build, to see that it works, not to quote**"
    return [
        f"- machine: {model[1] if model else os.uname().machine}, {os.cpu_count()} cores, Linux {os.uname().release}; the "
        "predecessor's was a MacBook Air M1",
        f"- commit: {os.environ['COMMIT']}, {build}; {SECONDS} s a run, ACK={os.environ.get('ACK', 'journal')}",
        f"- stores: {os.environ['POSTGRES_VERSION']}, {os.environ['REDIS_VERSION']}; PostgreSQL with fsync",
        "- load: Locust in one process on the same cores: users 1 to 100, posts 1 to 1,000; 40 % likes (answered after the "
        "commit), 20 % searches, 20 % clicks, 20 % page views; each simulated user makes one call a second",
    ]


def table(run):
    every, floor, (average, lower, upper) = run["all"], run["floor"], run["server"]
    of_server = f"{sum(run['cpu']):.0f} % of one core ({' / '.join(f'{share:.0f}' for share in run['cpu'])})"
    failures = f"{every['failures']} of {every['requests']}"
    them = PREDECESSOR.get(run["users"], ("-",) * 4)
    return [
        f"## {run['users']:,} users",
        "",
        "| | requests/s | average ms | 95 % ms | failures | CPU |",
        "|---|---|---|---|---|---|",
        f"| predecessor, by Locust | {them[0]} | {them[1]} | {them[2]} | - | {them[3]} |",
        f"| event-tracker, by Locust | {every['rate']:.0f} | {every['average']:.1f} | {every['p95']:.0f} | {failures} | "
        f"{of_server}: tracker / PostgreSQL / Redis |",
        f"| Locust's floor: GET /healthz/live | {floor['rate']:.0f} | {floor['average']:.1f} | {floor['p95']:.0f} | "
        f"{floor['failures']} | Locust under load: {run['locust_cpu']:.0f} % |",
        f"| event-tracker, by its own histogram | - | {average:.2f} | {lower:g} to {upper:g} | - | - |",
    ]


def calls(runs):
    lines = ["| users | call | requests/s | average ms | 95 % ms | failures |", "|---|---|---|---|---|---|"]
    for run in runs:
        for name, row in sorted(run["by_call"].items()):
            cells = (f"{run['users']:,}", name, f"{row['rate']:.0f}", f"{row['average']:.1f}", f"{row['p95']:.0f}")
            lines.append(f"| {' | '.join(cells)} | {row['failures']} |")
    return lines


def draw(runs, path):
    figure, (rates, times) = plt.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    for run in runs:
        history = run["history"]
        begun = int(history[0]["Timestamp"])
        at = [int(row["Timestamp"]) - begun for row in history]
        value = lambda name: [float(row[name]) if row[name] != "N/A" else float("nan") for row in history]  # noqa: E731, B023
        label = f"{run['users']:,} users"
        rates.plot(at, value("Requests/s"), label=label)
        line = times.plot(at, value("50%"), label=f"{label}, half below")
        times.plot(at, value("95%"), "--", color=line[0].get_color(), label=f"{label}, 95 % below")
    rates.set(ylabel="requests a second", ylim=(0, None), title="The predecessor's load with all users there, as Locust sees it")
    times.set(ylabel="ms", xlabel="seconds", ylim=(0, None))
    for axes in (rates, times):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=80)


def main():
    # Also then the tracker must end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tracker, url = start_tracker()
    try:
        subprocess.run([os.environ["BIN"], "seed", "posts", "--url", url], check=True)
        runs = [measure(tracker, url, users) for users in USERS]
    finally:
        tracker.terminate()
        tracker.wait(timeout=35)
    base = pathlib.Path("perf/results") / f"locust-{now():%Y-%m-%dT%H%M}"
    base.parent.mkdir(parents=True, exist_ok=True)
    plot = base.with_suffix(".png")
    draw(runs, plot)
    text = report(runs, plot)
    base.with_suffix(".md").write_text(text)
    print(text)
    say(f"written to {base}.md and {plot.name}")


main()
