//! The scripts, and how one is called: by its hash, loaded where the server does not know it.

use std::sync::LazyLock;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, ServerErrorKind, Value, cmd};
use uuid::Uuid;

use crate::ports::{LiveState, StoreError, Watermark};

use super::connection::{Wire, store_error};

/// A script after the first line, which has flags, and what it shares with others. `#!lua` makes the server refuse it
/// before it starts if memory is full, never in the middle; one that only reads runs even then.
macro_rules! script {
    ($flags:literal, $shared:literal, $file:literal) => {
        LazyLock::new(|| {
            let shared = include_str!(concat!("scripts/", $shared));
            let text = include_str!(concat!("scripts/", $file));
            redis::Script::new(&format!("#!lua{}\n{shared}\n{text}", $flags))
        })
    };
}
pub(super) use script;

pub(super) type Script = LazyLock<redis::Script>;

static STATE: Script = script!(" flags=no-writes", "shared.lua", "state.lua");
pub(super) static TOTALS: Script = script!(" flags=no-writes", "shared.lua", "totals.lua");
pub(super) static RECENT: Script = script!(" flags=no-writes", "shared.lua", "recent.lua");
pub(super) static TOP: Script = script!("", "shared.lua", "top.lua");
pub(super) static USERS: Script = script!("", "shared.lua", "users.lua");
pub(super) static REGISTER: Script = script!("", "shared.lua", "register.lua");
pub(super) static APPLY: Script = script!("", "shared.lua", "apply.lua");
pub(super) static FOLD: Script = script!("", "shared.lua", "fold.lua");

/// A call of `script` on the generation that `generation_key` names; the caller adds the arguments.
pub(super) fn call(script: &redis::Script, generation_key: &str) -> Cmd {
    let mut command = cmd("EVALSHA");
    command.arg(script.get_hash()).arg(1).arg(generation_key);
    command
}

/// Runs a call made by [`call`], loading the script where the server lost it: nothing was done then.
pub(super) fn run(wire: &mut Wire, script: &redis::Script, command: &Cmd) -> RedisResult<Vec<Value>> {
    match wire.exchange(|connection| command.query(connection)) {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            wire.exchange(|connection| script.prepare_invoke().load(connection))?;
            wire.exchange(|connection| command.query(connection))
        }
        other => other,
    }
}

/// The values behind the first word of a reply, which says whether the script did its work.
pub(super) fn reply<T: FromRedisValue>(mut values: Vec<Value>) -> Result<T, StoreError> {
    if values.is_empty() {
        return Err(unexpected("an empty answer of a script"));
    }
    let word: String = from_value(values.remove(0))?;
    match word.as_str() {
        "ok" => from_value(Value::Array(values)),
        "lost" => Err(StoreError::Fenced { found: None }),
        "fenced" => {
            let (found,): (Option<String>,) = from_value(Value::Array(values))?;
            Err(StoreError::Fenced { found: found.as_deref().map(watermark).transpose()? })
        }
        other => Err(unexpected(other)),
    }
}

pub(super) fn run_reply<T: FromRedisValue>(
    wire: &mut Wire,
    script: &redis::Script,
    command: &Cmd,
) -> Result<T, StoreError> {
    reply(run(wire, script, command).map_err(|error| store_error(&error))?)
}

pub(super) fn state(wire: &mut Wire, generation_key: &str, stream: Uuid) -> Result<LiveState, StoreError> {
    let mut command = call(&STATE, generation_key);
    match run_reply::<(Option<String>,)>(wire, &STATE, command.arg(stream.to_string())) {
        Ok((Some(text),)) => watermark(&text).map(LiveState::At),
        Ok((None,)) => Ok(LiveState::NewStream),
        Err(StoreError::Fenced { .. }) => Ok(LiveState::Lost),
        Err(error) => Err(error),
    }
}

/// `position:crc`, as it is stored.
pub(super) fn watermark_text(watermark: Watermark) -> String {
    format!("{}:{}", watermark.position, watermark.crc)
}

fn watermark(text: &str) -> Result<Watermark, StoreError> {
    let parse =
        |(position, crc): (&str, &str)| Some(Watermark { position: position.parse().ok()?, crc: crc.parse().ok()? });
    text.split_once(':').and_then(parse).ok_or_else(|| unexpected(text))
}

pub(super) fn from_value<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    redis::from_redis_value(value).map_err(|error| unexpected(&error.to_string()))
}

pub(super) fn unexpected(what: &str) -> StoreError {
    StoreError::Fatal(format!("redis: not what our scripts answer or store: {what}"))
}
