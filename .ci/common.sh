# shellcheck shell=bash
# Shared by the scripts here and in perf/: how to speak, and where PostgreSQL and Redis are.
# Nothing is configured by PATH alone: Debian keeps initdb and pg_ctl out of it.

POSTGRES_VERSION_MIN=15
REDIS_VERSION_MIN=7

say() { printf '%s\n' "event-tracker: $*" >&2; }
die() {
	say "$*"
	exit 1
}

# The directory of the newest PostgreSQL that is new enough, or nothing.
# POSTGRES_BIN names one by hand.
find_postgres() {
	local bin best='' best_version=0 version
	for bin in "${POSTGRES_BIN:-}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
		"$(dirname "$(command -v pg_ctl || echo /nowhere/pg_ctl)")"; do
		if [ ! -x "$bin/initdb" ] || [ ! -x "$bin/pg_ctl" ] || [ ! -x "$bin/psql" ]; then continue; fi
		version=$("$bin/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
		[ "$version" -ge "$POSTGRES_VERSION_MIN" ] || continue
		if [ "$bin" = "${POSTGRES_BIN:-}" ]; then
			echo "$bin"
			return
		fi
		if [ "$version" -gt "$best_version" ]; then
			best=$bin best_version=$version
		fi
	done
	[ -n "$best" ] && echo "$best"
}

# A binary that serves when called `redis-server`, or nothing. The package `redis-tools` is enough: its
# redis-check-rdb is the server under another name, and it brings no system service with it.
find_redis() {
	local name path version
	for name in redis-server valkey-server redis-check-rdb valkey-check-rdb; do
		path=$(command -v "$name") || continue
		version=$(redis_version "$path") || continue
		[ "$version" -ge "$REDIS_VERSION_MIN" ] || continue
		echo "$path"
		return
	done
	return 1
}

redis_version() {
	# The program looks at its own name: under any other than *-check-* it is the server.
	(exec -a "$(basename "$1" | sed 's/check-rdb/server/')" "$1" --version) 2>/dev/null |
		sed -n 's/.*server v=\([0-9]*\)\..*/\1/p' | grep .
}

find_redis_cli() { command -v redis-cli || command -v valkey-cli; }

# The commit that a report is about; a copy of the sources without git has none.
commit() {
	local hash
	hash=$(git rev-parse --short HEAD 2>/dev/null) || { echo unknown && return; }
	[ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || hash+=' with changes'
	echo "$hash"
}

# Processes whose parent is $1.
children_of() { cat "/proc/$1/task/$1/children" 2>/dev/null || true; }
